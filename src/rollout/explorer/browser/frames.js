// What a frame holds, where its panels stand, and what a traced patch makes of it: numbers, no paint.
// Python decides what is shown.

const TITLE = 22, BAR = 44, GAP = 14, LABEL = 62, SMALL = 16, NOTE = 17;

function describe(model) {
  const frame = model.get("frame");
  if (!frame.panels) return null;
  const bytes = model.get("maps"), colours = model.get("colours");
  let start = 0;
  // A panel of another view has its own grid, and may lie over another picture.
  const grids = frame.panels.map(panel => {
    const { rows, columns, extent, patch } = { ...frame, ...panel }, patches = rows * columns;
    start += patches;
    return { rows, columns, extent, patch, patches, start: start - patches };
  });
  if (bytes.byteLength !== 4 * start) return null;
  return { ...frame, grids, values: floats(bytes), opacity: model.get("opacity"),
    table: new Uint8Array(colours.buffer, colours.byteOffset, colours.byteLength) };
}

function valuesOf(frame, index) {
  const { start, patches } = frame.grids[index];
  return frame.values.subarray(start, start + patches);
}

function valueAt(frame, index, patch) {
  const { start, columns } = frame.grids[index];
  return frame.values[start + patch[0] * columns + patch[1]];
}

const sameGrid = (frame, one, other) => frame.grids[one].rows === frame.grids[other].rows
  && frame.grids[one].columns === frame.grids[other].columns;

// The frame with another patch traced, from what Python sent of all patches; null without that.
function tracedFrom(model, frame, patch) {
  if (model.get("traced") !== frame.number) return null;
  const at = patch[0] * frame.columns + patch[1], all = floats(model.get("traces"));
  const patches = frame.rows * frame.columns, size = patches * patches, number = all.length / size;
  const rows = [...Array(number).keys()].map(map =>
    all.subarray(map * size + at * patches, map * size + (at + 1) * patches));
  const shownAs = (panel, index) => panel.signed ? rows[0].map((value, i) => value - rows[1][i])
    : rows[Math.min(index, number - 1)];
  const shown = frame.panels.map(shownAs), values = new Float32Array(frame.values.length);
  shown.forEach((row, index) => values.set(row, index * patches));
  // As in Python: the traced patch keeps much of itself, and does not count for the scale.
  const others = row => row.map((value, i) => i === at ? 0 : Math.abs(value));
  const ended = (row, scale) => scaleTop(others(row), scale);
  const shared = Math.max(...rows.map(row => ended(row, frame.scale)));
  const panels = frame.panels.map((panel, index) => {
    const scale = panel.signed && frame.scale === "log" ? "auto" : frame.scale;
    const high = (frame.shared ? shared : ended(shown[index], scale)) || 1;
    const title = panel.over || panel.signed ? panel.title
      : `row ${patch[0]}, column ${patch[1]} keeps ${short(rows[0][at])} itself`;
    const low = panel.signed ? -high : !panel.logarithmic ? 0
      : logBottom((frame.shared ? rows : [shown[index]]).map(others), high);
    return { ...panel, high, low, title, unit: panel.signed ? panel.unit : frame.tracedUnit };
  });
  return { ...frame, values, panels, patch, grids: frame.grids.map(grid => ({ ...grid, patch })) };
}

// As `maths.scales`: a patch that stands far above the rest does not decide where a scale ends.
const few = patches => Math.max(1, Math.floor(0.01 * patches + 0.5));

function scaleTop(values, scale) {
  const sorted = Array.from(values).sort((one, two) => two - one);
  const rest = sorted[few(values.length)] || 0;
  if (scale === "auto" && rest > 0 && sorted[0] > 4 * rest) return rest;
  if (scale !== "percentile") return sorted[0];
  const at = 0.01 * (sorted.length - 1), upper = sorted[Math.floor(at)], lower = sorted[Math.ceil(at)];
  return upper + (lower - upper) * (at - Math.floor(at)) || sorted[0];
}

function logBottom(maps, top) {
  const positive = maps.flatMap(values => Array.from(values).filter(value => value > 0));
  const bottom = Math.max(positive.length ? Math.min(...positive) : 0, 1e-4 * top);
  return bottom < top ? bottom : top / 10;
}

// How far up the colours a value lies, in [0, 1].
function along({ low, high, logarithmic }, value) {
  const share = logarithmic ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
    : (value - low) / (high - low);
  return Math.max(0, Math.min(1, share));
}

function above(frame, index) {
  const { columns, patch, patches } = frame.grids[index];
  const high = Math.fround(frame.panels[index].high), found = [];
  const traced = patch ? patch[0] * columns + patch[1] : -1;
  valuesOf(frame, index).forEach((value, at) => { if (at !== traced && Math.abs(value) > high) found.push(at); });
  return found.length > few(patches) ? [] : found.map(at => [Math.floor(at / columns), at % columns]);
}

// On a small screen all panels, and what is below the map, stay in sight.
function tallest(frame, size) {
  const lines = Math.ceil(frame.panels.length / frame.across);
  if (!frame.small) return Math.max(120, 0.44 * innerHeight - 190 * (size - 1));
  const titles = frame.rowLabels.length ? TITLE * size : lines * SMALL * size;
  return Math.max(48, (0.62 * innerHeight - BAR * size - titles) / lines - 3);
}

// Where everything stands, in CSS pixels. Panels have their image's proportions; `size` is that of
// the letters.
function layOut(frame, pictures, width, largest, size) {
  const labelled = frame.rowLabels.length > 0, { small } = frame;
  const left = labelled ? LABEL * size : 0, gap = small ? 3 : GAP;
  const bars = frame.panels.some(panel => panel.unit);
  const perPanel = labelled ? 0 : small ? SMALL * size : TITLE * size;
  const noted = Math.max(0, ...frame.panels.map(panel => panel.note ? panel.note.split("\n").length : 0));
  // Where panels are narrow, a unit has two lines.
  const bar = (bars ? BAR + (frame.across > 3 ? 13 : 0) : 0) * size;
  const below = small ? 0 : bar + NOTE * size * noted;
  const aspects = frame.panels.map(panel => pictures[panel.other ? 1 : 0].height / pictures[panel.other ? 1 : 0].width);
  const aspect = Math.max(...aspects);
  const room = (width - left - gap * (frame.across - 1)) / frame.across;
  const side = Math.max(16, Math.min(room, largest, largest / aspect));
  const top = labelled ? TITLE * size : 0, step = side * aspect + perPanel + below + gap;
  const lines = Math.ceil(frame.panels.length / frame.across);
  const boxes = frame.panels.map((_, index) => ({
    x: left + (index % frame.across) * (side + gap), width: side, height: side * aspects[index],
    y: top + perPanel + Math.floor(index / frame.across) * step }));
  const height = top + lines * step - gap + (small && bars ? BAR * size : 0);
  const bottom = top + lines * step - gap;
  return { boxes, labelled, left, gap, height, bar, bottom, size,
    width: left + frame.across * (side + gap) - gap };
}

// Where the map lies in a panel: the grid may leave a margin of the image out, or reach beyond it.
function mapBox(frame, index, box) {
  const [top, left, bottom, right] = frame.grids[index].extent;
  return { x: box.x + left * box.width, y: box.y + top * box.height,
    width: (right - left) * box.width, height: (bottom - top) * box.height };
}

const short = value => value === 0 ? "0" : Math.abs(value) >= 0.001 && Math.abs(value) < 1000
  ? String(+value.toPrecision(2)) : value.toExponential(1);

const highest = (frame, index) => Math.max(...valuesOf(frame, index));
