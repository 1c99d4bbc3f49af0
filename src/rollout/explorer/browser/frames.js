// What a frame holds, where its panels stand, and what a traced patch makes of it: numbers, no paint.
// Python decides what is shown.

const TITLE = 22, BAR = 44, GAP = 14, LABEL = 62;

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

// Where the map lies in a panel: the grid may leave a margin of the image out, or reach beyond it.
function mapBox(frame, box) {
  const [top, left, bottom, right] = frame.extent;
  return { x: box.x + left * box.width, y: box.y + top * box.height,
    width: (right - left) * box.width, height: (bottom - top) * box.height };
}

const short = value => value === 0 ? "0" : Math.abs(value) >= 0.001 && Math.abs(value) < 1000
  ? String(+value.toPrecision(2)) : value.toExponential(1);

const highest = (frame, index) =>
  Math.max(...frame.values.subarray(index * frame.patches, (index + 1) * frame.patches));
