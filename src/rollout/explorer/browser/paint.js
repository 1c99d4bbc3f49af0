// Paints the panels of a frame: each a map coloured by the table, over the greyed image or alone.
// An overlay looks as `plot_overlay` in plots/maps.py draws it.

const ABOVE = "#66ff66";  // as in plots/marks.py: patches above the end of the scale

// Values alone, a patch a patch.
function blocks(frame, index, scratch) {
  const { rows, columns } = frame.grids[index], image = new ImageData(columns, rows);
  const panel = frame.panels[index], first = 768 * panel.colours;
  valuesOf(frame, index).forEach((value, patch) => {
    const level = first + 3 * Math.min(255, Math.floor(256 * along(panel, value)));  // as matplotlib
    image.data.set([...frame.table.subarray(level, level + 3), 255], 4 * patch);
  });
  scratch.width = columns; scratch.height = rows;
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
  const panel = frame.panels[index], { colours } = panel, { table } = frame;
  const { rows, columns } = frame.grids[index];
  const shares = valuesOf(frame, index).map(value => along(panel, value)), hides = shares.map(Math.sqrt);
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
  const panel = frame.panels[index], { x, y, width, height } = mapBox(frame, index, box);
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

function outline(pen, frame, index, box, patch, colour) {
  const map = mapBox(frame, index, box), { rows, columns } = frame.grids[index];
  const width = map.width / columns, height = map.height / rows;
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
  const value = patch => valueAt(frame, index, patch), { rows, columns } = frame.grids[index];
  const patches = above(frame, index);
  patches.forEach(patch => outline(pen, frame, index, box, patch, ABOVE));
  if (!patches.length || !withValue) return;
  const patch = patches.reduce((one, other) => Math.abs(value(other)) > Math.abs(value(one)) ? other : one);
  const map = mapBox(frame, index, box), wide = map.width / columns, right = patch[1] < columns / 2;
  const x = map.x + patch[1] * wide + (right ? 1.3 * wide : -0.3 * wide);
  const y = map.y + (patch[0] + 0.5) * map.height / rows;
  pen.font = "12px sans-serif"; pen.textBaseline = "middle"; pen.textAlign = right ? "left" : "right";
  pen.lineWidth = 3; pen.strokeStyle = "#000"; pen.strokeText(short(value(patch)), x, y);
  pen.fillStyle = ABOVE; pen.fillText(short(value(patch)), x, y);
}

function paintBar(pen, frame, index, box, ink, size) {
  const panel = frame.panels[index], { colours } = panel, y = box.y + box.height + 6;
  // As `Frame.bar`: one bar for panels of many scales has shares.
  const [low, high] = frame.small && !frame.shared ? [0, 1] : [panel.low, panel.high];
  const logarithmic = panel.logarithmic && low > 0;
  for (let x = 0; x < box.width; x++) {
    const level = 768 * colours + 3 * Math.floor(256 * x / box.width);
    pen.fillStyle = `rgb(${frame.table.slice(level, level + 3).join()})`;
    pen.fillRect(box.x + x, y, Math.min(1.5, box.width - x), 9);
  }
  const middle = logarithmic ? Math.sqrt(low * high) : (low + high) / 2;
  pen.fillStyle = ink; pen.font = `${11 * size}px sans-serif`; pen.textBaseline = "top";
  for (const [place, value, align] of [[0, low, "left"], [0.5, middle, "center"], [1, high, "right"]]) {
    const beyond = place === 1 && above(frame, index).length ? "\u2265 " : "";
    pen.textAlign = align; pen.fillText(beyond + short(value), box.x + place * box.width, y + 12);
  }
  pen.textAlign = "center";
  wrapped(pen, panel.unit + (logarithmic ? ", logarithmic" : ""), box.width, frame.across > 3 && !frame.small)
    .forEach((words, line) =>
      pen.fillText(words, box.x + box.width / 2, y + 12 + 13 * size * (line + 1), box.width));
}

// In two lines where it is too long for one.
function wrapped(pen, text, width, mayWrap) {
  if (!mayWrap || pen.measureText(text).width <= width) return [text];
  const words = text.split(" ");
  let first = words.shift();
  while (words.length && pen.measureText(`${first} ${words[0]}`).width <= width) first += ` ${words.shift()}`;
  return [first, words.join(" ")];
}

function fitting(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  while (text && pen.measureText(text + "\u2026").width > width) text = text.slice(0, -1);
  return text + "\u2026";
}

function paintText(pen, frame, { boxes, labelled, size, bar }, ink) {
  pen.fillStyle = ink; pen.font = `${(frame.small ? 11 : 13) * size}px sans-serif`;
  pen.textBaseline = "alphabetic"; pen.textAlign = "left";
  if (!labelled) {
    frame.panels.forEach((panel, index) => {
      const box = boxes[index];
      panel.note?.split("\n").forEach((note, line) =>
        pen.fillText(note, box.x, box.y + box.height + bar + NOTE * (line + 0.7) * size));
      pen.fillText(fitting(pen, panel.title, box.width), box.x, box.y - (frame.small ? 3 : 7)); });
    return;
  }
  pen.textAlign = "center";
  frame.columnLabels.forEach((label, index) => {
    const box = boxes[index]; pen.fillText(label, box.x + box.width / 2, box.y - 6, box.width); });
  pen.textAlign = "right"; pen.textBaseline = "middle";
  frame.rowLabels.forEach((label, index) => {
    const box = boxes[index * frame.across]; pen.fillText(label, box.x - 6, box.y + box.height / 2); });
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
