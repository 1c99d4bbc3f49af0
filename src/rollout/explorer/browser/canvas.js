// Paints the panels of a frame: each a map coloured by the table, over the greyed image or alone.
// An overlay looks as `plot_overlay` in plots/maps.py draws it.
// Python decides what is shown; here are only colours, pixels and the pointer.

const TITLE = 22, BAR = 44, GAP = 14, LABEL = 62;
const ABOVE = "#66ff66";  // as in plots/marks.py: patches above the end of the scale

function describe(model) {
  const frame = model.get("frame");
  if (!frame.panels) return null;
  const bytes = model.get("maps"), colours = model.get("colours");
  const patches = frame.rows * frame.columns;
  if (bytes.byteLength !== 4 * patches * frame.panels.length) return null;
  return { ...frame, patches, values: floats(bytes), opacity: model.get("opacity"),
    table: new Uint8Array(colours.buffer, colours.byteOffset, colours.byteLength) };
}

// The frame with another patch traced, from what Python sent of all patches; null without that.
function tracedFrom(model, frame, patch) {
  if (model.get("traced") !== frame.number) return null;
  const at = patch[0] * frame.columns + patch[1], all = floats(model.get("traces"));
  const size = frame.patches * frame.patches, number = all.length / size;
  const rows = [...Array(number).keys()].map(map =>
    all.subarray(map * size + at * frame.patches, map * size + (at + 1) * frame.patches));
  const shownAs = (panel, index) => panel.signed ? rows[0].map((value, i) => value - rows[1][i])
    : rows[Math.min(index, number - 1)];
  const shown = frame.panels.map(shownAs), values = new Float32Array(frame.values.length);
  shown.forEach((row, index) => values.set(row, index * frame.patches));
  // As in Python: the traced patch keeps much of itself, and does not count for the scale.
  const highest = row => scaleTop(row.map((value, i) => i === at ? 0 : Math.abs(value)));
  const shared = Math.max(...rows.map(highest));
  const panels = frame.panels.map((panel, index) => {
    const high = (frame.shared ? shared : highest(shown[index])) || 1;
    const title = panel.over || panel.signed ? panel.title
      : `row ${patch[0]}, column ${patch[1]} keeps ${short(rows[0][at])} itself`;
    return { ...panel, high, low: panel.signed ? -high : 0, title,
      unit: panel.signed ? panel.unit : frame.tracedUnit };
  });
  return { ...frame, values, panels, patch };
}

// As `maths.dominance`: a patch that stands far above the rest does not decide where a scale ends.
const few = patches => Math.max(1, Math.floor(0.01 * patches + 0.5));

function scaleTop(values) {
  const sorted = Array.from(values).sort((one, two) => two - one);
  const rest = sorted[few(values.length)] || 0;
  return rest > 0 && sorted[0] > 4 * rest ? rest : sorted[0];
}

function above(frame, index) {
  const values = frame.values.subarray(index * frame.patches, (index + 1) * frame.patches);
  const high = Math.fround(frame.panels[index].high), found = [];
  const traced = frame.patch ? frame.patch[0] * frame.columns + frame.patch[1] : -1;
  values.forEach((value, at) => { if (at !== traced && Math.abs(value) > high) found.push(at); });
  return found.length > few(frame.patches) ? []
    : found.map(at => [Math.floor(at / frame.columns), at % frame.columns]);
}

// On a small screen all blocks, and what is below the map, stay in sight.
function tallest(frame) {
  const blocks = frame.rowLabels.length;
  return blocks ? Math.max(48, 0.66 * innerHeight / blocks) : 0.44 * innerHeight;
}

// Where everything stands, in CSS pixels. Panels have the image's proportions.
function layOut(frame, picture, width, largest) {
  const labelled = frame.rowLabels.length > 0;
  const left = labelled ? LABEL : 0, gap = labelled ? 3 : GAP;
  const bars = frame.panels.some(panel => panel.unit);
  const perPanel = labelled ? 0 : TITLE, below = labelled ? 0 : bars ? BAR : 0;
  const aspect = picture.height / picture.width;
  const room = (width - left - gap * (frame.across - 1)) / frame.across;
  const side = Math.max(16, Math.min(room, largest, largest / aspect));
  const panel = { width: side, height: side * aspect };
  const top = labelled ? TITLE : 0, step = panel.height + perPanel + below + gap;
  const lines = Math.ceil(frame.panels.length / frame.across);
  const boxes = frame.panels.map((_, index) => ({
    x: left + (index % frame.across) * (side + gap),
    y: top + perPanel + Math.floor(index / frame.across) * step, ...panel }));
  const height = top + lines * step - gap + (labelled && bars ? BAR : 0);
  return { boxes, labelled, left, gap, height, bars,
    width: left + frame.across * (side + gap) - gap };
}

function colourMap(frame, index, scratch) {
  const { low, high, colours, over } = frame.panels[index];
  const image = new ImageData(frame.columns, frame.rows);
  for (let patch = 0; patch < frame.patches; patch++) {
    const value = frame.values[index * frame.patches + patch];
    const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
    const level = 768 * colours + 3 * Math.round(255 * share);
    // Over the image a low value hides nothing.
    const opaque = over ? frame.opacity * Math.sqrt(share) : 1;
    image.data.set([...frame.table.subarray(level, level + 3), 255 * opaque], 4 * patch);
  }
  scratch.width = frame.columns; scratch.height = frame.rows;
  scratch.getContext("2d").putImageData(image, 0, 0);
}

// Where the map lies in a panel: the grid may leave a margin of the image out, or reach beyond it.
function mapBox(frame, box) {
  const [top, left, bottom, right] = frame.extent;
  return { x: box.x + left * box.width, y: box.y + top * box.height,
    width: (right - left) * box.width, height: (bottom - top) * box.height };
}

function paintPanel(pen, frame, index, box, grey, scratch) {
  const panel = frame.panels[index];
  colourMap(frame, index, scratch);
  if (panel.over) pen.drawImage(grey, box.x, box.y, box.width, box.height);
  pen.imageSmoothingEnabled = panel.over;  // alone, a patch is a patch
  const { x, y, width, height } = mapBox(frame, box);
  pen.save(); pen.beginPath(); pen.rect(box.x, box.y, box.width, box.height); pen.clip();
  if (!panel.over) { pen.fillStyle = "#808080"; pen.fillRect(box.x, box.y, box.width, box.height); }
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

const short = value => value === 0 ? "0" : Math.abs(value) >= 0.001 && Math.abs(value) < 1000
  ? String(+value.toPrecision(2)) : value.toExponential(1);

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

function render({ model, el }) {
  const root = document.createElement("div"), canvas = document.createElement("canvas");
  const value = document.createElement("div"), scratch = document.createElement("canvas");
  root.className = "rollout-canvas"; value.className = "value"; canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  root.append(canvas, value); el.append(root);
  let grey = null, loaded = null, places = null, over = null;

  function paint() {
    let frame = describe(model);
    const width = root.clientWidth;
    if (!frame || !grey || !width || loaded !== model.get("picture")) return;
    if (over && model.get("follow")) frame = tracedFrom(model, frame, over.patch) || frame;
    const ratio = window.devicePixelRatio || 1;
    const ink = getComputedStyle(root).getPropertyValue("--jp-ui-font-color1").trim() || "#222";
    places = layOut(frame, grey, width, Math.min(model.get("largest"), tallest(frame)));
    const size = [Math.ceil(places.width * ratio), Math.ceil(places.height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) {
      [canvas.width, canvas.height] = size;
      canvas.style.width = `${places.width}px`; canvas.style.height = `${places.height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, places.width, places.height);
    places.boxes.forEach((box, index) => {
      paintPanel(pen, frame, index, box, grey, scratch);
      markAbove(pen, frame, index, box, !places.labelled);
      if (frame.patch) outline(pen, frame, box, frame.patch, "#fff");
      if (frame.panels[index].unit) paintBar(pen, frame, index, barBox(box, index), ink);
    });
    if (over) outline(pen, frame, places.boxes[over.panel], over.patch, "#4fc3f7");
    paintText(pen, frame, places, ink);
    canvas.setAttribute("aria-label", frame.panels.map(panel => panel.title).join("; "));
    tell(frame);
    canvas.dataset.number = frame.number;  // what a test or a benchmark waits for
    canvas.dataset.patch = frame.patch || "";
    canvas.dataset.paints = 1 + Number(canvas.dataset.paints || 0);
  }

  // In the grid one bar serves all, below the last row, from the first column on.
  const barBox = (box, index) => !places.labelled ? box
    : { ...box, x: places.boxes[0].x, width: Math.min(300, places.width - places.left) };

  function tell(frame) {
    if (!over) { value.textContent = ""; return; }
    const [row, column] = over.patch, panel = frame.panels[over.panel];
    const number = frame.values[over.panel * frame.patches + row * frame.columns + column];
    value.textContent = `${panel.title} | row ${row}, column ${column}: ${number.toPrecision(3)}`;
  }

  function load() {
    const bytes = model.get("picture");
    if (!bytes.byteLength) return;
    const image = new Image(), address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    image.onload = () => { grey = greyed(image); loaded = bytes; URL.revokeObjectURL(address); paint(); };
    image.src = address;
  }

  function find(event) {
    const frame = describe(model), outer = canvas.getBoundingClientRect();
    if (!frame || !places) return null;
    const x = event.clientX - outer.left, y = event.clientY - outer.top;
    const panel = places.boxes.findIndex(box =>
      x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height);
    if (panel < 0) return null;
    const map = mapBox(frame, places.boxes[panel]);
    const row = Math.floor((y - map.y) / map.height * frame.rows);
    const column = Math.floor((x - map.x) / map.width * frame.columns);
    const inside = row >= 0 && column >= 0 && row < frame.rows && column < frame.columns;
    return inside ? { panel, patch: [row, column] } : null;
  }

  function report(kind, at) {
    model.set("pointer", { kind, ...at, number: 1 + (model.get("pointer").number || 0) });
    model.save_changes();
  }

  function move(event) {
    const at = find(event);
    if (JSON.stringify(at) === JSON.stringify(over)) return;
    over = at;
    paint();
    if (at) ask("hover", at); else ask("leave", { panel: 0, patch: [0, 0] });
  }

  // Python is only asked what it has not sent yet.
  function ask(kind, at) {
    if (model.get("follow") && model.get("traced") !== model.get("frame").number) report(kind, at);
  }

  function press(event) {
    const at = find(event);
    if (at) { over = at; report("click", at); }
  }

  function leave() {
    if (!over) return;
    over = null; paint();
    ask("leave", { panel: 0, patch: [0, 0] });
  }

  function step(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const frame = describe(model);
    if (event.key === "Escape") return report("escape", { panel: 0, patch: [0, 0] });
    if (!frame || !moves[event.key]) return;
    event.preventDefault(); event.stopPropagation();
    const from = frame.patch || [0, 0], way = moves[event.key];
    const to = (place, by, most) => Math.max(0, Math.min(most - 1, place + by));
    report("step", { panel: 0, patch: [to(from[0], way[0], frame.rows), to(from[1], way[1], frame.columns)] });
  }

  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("keydown", step);
  const sized = new ResizeObserver(paint);
  sized.observe(root);
  model.on("change:picture", load);
  model.on("change:frame change:opacity change:traced", paint);
  load();
  return () => { sized.disconnect(); model.off("change:picture", load);
    model.off("change:frame change:opacity change:traced", paint); };
}

export default { render };
