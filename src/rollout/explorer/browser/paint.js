// Paints the panels of a frame: each a map coloured by the table, over the greyed image or alone.
// An overlay looks as `plot_overlay` in plots/maps.py draws it.

const ABOVE = "#66ff66";  // as in plots/marks.py: patches above the end of the scale

// Values alone, a patch a patch.
function blocks(frame, index, scratch) {
  const { low, high, colours } = frame.panels[index], image = new ImageData(frame.columns, frame.rows);
  for (let patch = 0; patch < frame.patches; patch++) {
    const value = frame.values[index * frame.patches + patch];
    const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
    const level = 768 * colours + 3 * Math.min(255, Math.floor(256 * share));  // as matplotlib
    image.data.set([...frame.table.subarray(level, level + 3), 255], 4 * patch);
  }
  scratch.width = frame.columns; scratch.height = frame.rows;
  scratch.getContext("2d").putImageData(image, 0, 0);
}

// Between which two patches each of `pixels` lies along one side, and how near to the second.
function between(pixels, patches) {
  const first = new Int32Array(pixels), second = new Int32Array(pixels), near = new Float32Array(pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    const at = Math.max(0, Math.min(patches - 1, (pixel + 0.5) / pixels * patches - 0.5));
    first[pixel] = Math.floor(at); second[pixel] = Math.min(patches - 1, first[pixel] + 1);
    near[pixel] = at - first[pixel];
  }
  return { first, second, near };
}

// Over the image: values are interpolated, then coloured, and so is how much they hide; a low value
// hides nothing. To colour patches and then interpolate would show colours that no value has.
function smooth(frame, index, width, height, scratch) {
  const { high, colours } = frame.panels[index], { rows, columns, patches, table } = frame;
  const shares = new Float32Array(patches), hides = new Float32Array(patches);
  for (let patch = 0; patch < patches; patch++) {
    shares[patch] = Math.max(0, Math.min(1, frame.values[index * patches + patch] / high));
    hides[patch] = Math.sqrt(shares[patch]);
  }
  const image = new ImageData(width, height), data = image.data;
  const across = between(width, columns), down = between(height, rows);
  for (let y = 0, at = 0; y < height; y++) {
    const one = down.first[y] * columns, two = down.second[y] * columns, v = down.near[y];
    for (let x = 0; x < width; x++, at += 4) {
      const a = across.first[x], b = across.second[x], u = across.near[x];
      const mix = from => (1 - v) * ((1 - u) * from[one + a] + u * from[one + b])
        + v * ((1 - u) * from[two + a] + u * from[two + b]);
      const level = 768 * colours + 3 * Math.min(255, Math.floor(256 * mix(shares)));
      data[at] = table[level]; data[at + 1] = table[level + 1]; data[at + 2] = table[level + 2];
      data[at + 3] = 255 * frame.opacity * mix(hides) + 0.5;
    }
  }
  scratch.width = width; scratch.height = height;
  scratch.getContext("2d").putImageData(image, 0, 0);
}

function paintPanel(pen, frame, index, box, grey, scratch, ratio) {
  const panel = frame.panels[index], { x, y, width, height } = mapBox(frame, box);
  if (panel.over) {
    smooth(frame, index, Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio)), scratch);
    pen.drawImage(grey, box.x, box.y, box.width, box.height);
  } else blocks(frame, index, scratch);
  pen.save(); pen.beginPath(); pen.rect(box.x, box.y, box.width, box.height); pen.clip();
  if (!panel.over) { pen.fillStyle = "#808080"; pen.fillRect(box.x, box.y, box.width, box.height); }
  pen.imageSmoothingEnabled = panel.over;  // alone, a patch is a patch
  pen.drawImage(scratch, x, y, width, height);
  pen.restore();
  pen.imageSmoothingEnabled = true;
}

function outline(pen, frame, box, patch, colour) {
  const map = mapBox(frame, box), width = map.width / frame.columns, height = map.height / frame.rows;
  const place = [map.x + patch[1] * width, map.y + patch[0] * height, width, height];
  pen.lineWidth = 3; pen.strokeStyle = "#000"; pen.strokeRect(...place);
  pen.lineWidth = 1.5; pen.strokeStyle = colour; pen.strokeRect(...place);
}

// Around a whole panel of the grid.
function frameOf(pen, box) {
  pen.lineWidth = 3; pen.strokeStyle = "#4fc3f7";
  pen.strokeRect(box.x + 1.5, box.y + 1.5, box.width - 3, box.height - 3);
}

// The patches above the end of the scale; beside the highest its value, on the side with room.
function markAbove(pen, frame, index, box, withValue) {
  const value = patch => frame.values[index * frame.patches + patch[0] * frame.columns + patch[1]];
  const patches = above(frame, index);
  patches.forEach(patch => outline(pen, frame, box, patch, ABOVE));
  if (!patches.length || !withValue) return;
  const patch = patches.reduce((one, other) => Math.abs(value(other)) > Math.abs(value(one)) ? other : one);
  const map = mapBox(frame, box), wide = map.width / frame.columns, right = patch[1] < frame.columns / 2;
  const x = map.x + patch[1] * wide + (right ? 1.3 * wide : -0.3 * wide);
  const y = map.y + (patch[0] + 0.5) * map.height / frame.rows;
  pen.font = "12px sans-serif"; pen.textBaseline = "middle"; pen.textAlign = right ? "left" : "right";
  pen.lineWidth = 3; pen.strokeStyle = "#000"; pen.strokeText(short(value(patch)), x, y);
  pen.fillStyle = ABOVE; pen.fillText(short(value(patch)), x, y);
}

function paintBar(pen, frame, index, box, ink) {
  const panel = frame.panels[index], { colours, unit } = panel, y = box.y + box.height + 6;
  // As `Frame.bar`: one bar for panels of many scales has shares.
  const [low, high] = frame.rowLabels.length && !frame.shared ? [0, 1] : [panel.low, panel.high];
  for (let x = 0; x < box.width; x++) {
    const level = 768 * colours + 3 * Math.floor(256 * x / box.width);
    pen.fillStyle = `rgb(${frame.table.slice(level, level + 3).join()})`;
    pen.fillRect(box.x + x, y, Math.min(1.5, box.width - x), 9);
  }
  pen.fillStyle = ink; pen.font = "11px sans-serif"; pen.textBaseline = "top";
  for (const [place, value, align] of [[0, low, "left"], [0.5, (low + high) / 2, "center"], [1, high, "right"]]) {
    const beyond = place === 1 && above(frame, index).length ? "\u2265 " : "";
    pen.textAlign = align; pen.fillText(beyond + short(value), box.x + place * box.width, y + 12);
  }
  pen.textAlign = "center";
  pen.fillText(unit, box.x + box.width / 2, y + 25, box.width);
}

function fitting(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  while (text && pen.measureText(text + "\u2026").width > width) text = text.slice(0, -1);
  return text + "\u2026";
}

function paintText(pen, frame, places, ink) {
  pen.fillStyle = ink; pen.font = "13px sans-serif"; pen.textBaseline = "alphabetic";
  if (!places.labelled) {
    pen.textAlign = "left";
    frame.panels.forEach((panel, index) => {
      const box = places.boxes[index]; pen.fillText(fitting(pen, panel.title, box.width), box.x, box.y - 7); });
    return;
  }
  pen.font = "11px sans-serif"; pen.textAlign = "center";
  frame.columnLabels.forEach((label, index) => {
    const box = places.boxes[index]; pen.fillText(label, box.x + box.width / 2, box.y - 6, box.width); });
  pen.textAlign = "right"; pen.textBaseline = "middle";
  frame.rowLabels.forEach((label, index) => {
    const box = places.boxes[index * frame.across]; pen.fillText(label, box.x - 6, box.y + box.height / 2); });
}

function greyed(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height), data = pixels.data;
  for (let at = 0; at < data.length; at += 4)
    data[at] = data[at + 1] = data[at + 2] = 26 + (data[at] + data[at + 1] + data[at + 2]) / 6;
  pen.putImageData(pixels, 0, 0);
  return canvas;
}
