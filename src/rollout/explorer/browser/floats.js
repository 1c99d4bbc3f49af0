// Stands in front of the scripts that get numbers from Python.

// What numpy wrote as "<f4"; copied, as a view may begin at any byte.
function floats(bytes) {
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
