// The canvas: the pointer, the keys, and what is said of the patch under them.

const HELP = "Arrow keys trace a patch, Escape lets it go.";
const HELP_PICK = "Arrow keys go from panel to panel, Enter chooses one.";
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const FAST = 1500;  // milliseconds: keys that follow each other faster do not wait for Python

function render({ model, el }) {
  const root = document.createElement("div"), canvas = document.createElement("canvas");
  const value = document.createElement("div"), beside = document.createElement("div");
  const scratch = document.createElement("canvas");
  root.className = "rollout-canvas"; value.className = "value"; canvas.tabIndex = 0;
  beside.className = "beside"; beside.hidden = true;
  canvas.setAttribute("role", "img");
  root.append(value, canvas, beside); el.append(root);
  const greys = [null, null], loaded = [null, null], names = ["picture", "other_picture"];
  let places = null, over = null;
  let still = null;  // the map without a hovered patch
  let cursor = null, stepped = 0;  // where the last key led, and when

  function paint() {
    let frame = describe(model);
    const width = root.clientWidth;
    const missing = name => loaded[name] !== model.get(names[name]);
    if (!frame || !width || missing(0) || frame.panels.some(panel => panel.other) && missing(1)) return;
    if (!frame.hovered) still = frame;
    if (over && model.get("follow")) frame = tracedFrom(model, frame, over.patch) || frame;
    // What stands beside is said of the map, not of the patch that is hovered.
    root.closest(".rollout-explorer")?.classList
      .toggle("rollout-tracing", String(frame.patch) !== String(still?.patch));
    const ratio = window.devicePixelRatio || 1;
    const ink = getComputedStyle(root).getPropertyValue("--jp-ui-font-color1").trim() || "#222";
    const letters = parseFloat(getComputedStyle(root).getPropertyValue("--rollout-text")) || 1;
    places = layOut(frame, greys, width, Math.min(model.get("largest"), tallest(frame, letters)), letters);
    const size = [Math.ceil(places.width * ratio), Math.ceil(places.height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) {
      [canvas.width, canvas.height] = size;
      canvas.style.width = `${places.width}px`; canvas.style.height = `${places.height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, places.width, places.height);
    places.boxes.forEach((box, index) => {
      const panel = frame.panels[index], { patch } = frame.grids[index];
      paintPanel(pen, frame, index, box, greys[panel.other ? 1 : 0], scratch, ratio);
      markAbove(pen, frame, index, box, !frame.small);
      if (patch) outline(pen, frame, index, box, patch, "#fff");
      if (panel.unit) paintBar(pen, frame, index, barBox(frame, box), ink, letters);
    });
    if (over && frame.picks) frameOf(pen, places.boxes[over.panel]);
    else if (over) hovered(frame).forEach(index =>
      outline(pen, frame, index, places.boxes[index], over.patch, "#4fc3f7"));
    paintText(pen, frame, places, ink);
    canvas.setAttribute("aria-label", describedIn(frame));
    tell(frame);
    canvas.dataset.number = frame.number;  // what a test or a benchmark waits for
    canvas.dataset.patch = frame.patch || "";
    canvas.dataset.paints = 1 + Number(canvas.dataset.paints || 0);
  }

  // In the grid one bar serves all, below the last row, from the first column on.
  const barBox = (frame, box) => !frame.small ? box : { x: places.boxes[0].x, y: places.bottom,
    height: 0, width: Math.min(300, places.width - places.left) };

  // The panels that show the patch under the pointer: where views are compared, all of its grid.
  const hovered = frame => [...frame.panels.keys()].filter(index => index === over.panel
    || frame.panels[index].name && sameGrid(frame, index, over.panel));

  const describedIn = frame => frame.small ? `${frame.caption}. ${HELP_PICK}`
    : `${frame.panels.map(panel => [panel.title, panel.note].filter(Boolean).join(": ")).join("; ")}. ${frame.caption}. ${frame.picks ? HELP_PICK : HELP}`;

  // The map's own value at the patch, and what the patch shows where it is traced.
  function tell(frame) {
    value.textContent = frame.caption;
    beside.hidden = true;
    if (!over?.patch || !frame.panels[over.panel]) return;
    const [row, column] = over.patch, panel = frame.panels[over.panel];
    const place = `${frame.picks ? `${panel.name || panel.title}, ` : ""}row ${row}, column ${column}`;
    const own = still && still.values.length === frame.values.length ? still : frame;
    const said = index => `${valueAt(own, index, over.patch).toPrecision(3)} ${own.panels[index].name}`.trim();
    const traced = frame === own ? "" : `; traced from here it keeps ${valueAt(frame, over.panel, over.patch).toPrecision(3)} itself`;
    value.textContent = `${place}: ${panel.name && !frame.picks ? hovered(frame).map(said).join(", ")
      : `${valueAt(own, over.panel, over.patch).toPrecision(3)} in the map`}${traced}`;
    if (frame.small) besidePointer(value.textContent.replace(`${panel.title}, `, ""), over.panel);
  }

  // Where the grid is taller than the screen, the line above it is out of sight.
  function besidePointer(words, panel) {
    const box = places.boxes[panel], right = box.x + box.width / 2 > places.width / 2;
    beside.hidden = false; beside.textContent = words;
    beside.style.top = `${canvas.offsetTop + box.y + box.height + 4}px`;
    beside.style.left = right ? "auto" : `${box.x}px`;
    beside.style.right = right ? `${root.clientWidth - box.x - box.width}px` : "auto";
  }

  function load(number) {
    const bytes = model.get(names[number]);
    if (!bytes.byteLength) { loaded[number] = bytes; return; }
    const image = new Image(), address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    image.onload = () => {
      greys[number] = greyed(image); loaded[number] = bytes; URL.revokeObjectURL(address); paint(); };
    image.src = address;
  }
  const loads = names.map((_, number) => () => load(number));

  function find(event) {
    const frame = describe(model), outer = canvas.getBoundingClientRect();
    if (!frame || !places) return null;
    const x = event.clientX - outer.left, y = event.clientY - outer.top;
    const panel = places.boxes.findIndex(box =>
      x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height);
    if (panel < 0) return null;
    const map = mapBox(frame, panel, places.boxes[panel]), { rows, columns } = frame.grids[panel];
    const row = Math.floor((y - map.y) / map.height * rows);
    const column = Math.floor((x - map.x) / map.width * columns);
    const inside = row >= 0 && column >= 0 && row < rows && column < columns;
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

  const within = (place, by, most) => Math.max(0, Math.min(most - 1, place + by));

  function step(event) {
    const frame = describe(model), way = MOVES[event.key];
    if (event.key === "Escape") { cursor = over = null; return report("escape", { panel: 0, patch: [0, 0] }); }
    if (!frame || !places || event.ctrlKey || event.metaKey) return;
    if (frame.picks) return stepPanel(event, frame, way);
    if (!way) return;
    event.preventDefault();
    const from = (Date.now() - stepped < FAST && cursor) || frame.patch || [0, 0];
    stepped = Date.now();
    cursor = [within(from[0], way[0], frame.rows), within(from[1], way[1], frame.columns)];
    report("step", { panel: 0, patch: cursor });
  }

  function stepPanel(event, frame, way) {
    const panel = over ? over.panel : -1, across = frame.across;
    const number = frame.panels.length, down = Math.ceil(number / across);
    if (event.key === "Enter" && panel >= 0) return report("click", { panel, patch: [0, 0] });
    if (!way) return;
    event.preventDefault();
    const row = within(Math.floor(Math.max(panel, 0) / across), panel < 0 ? 0 : way[0], down);
    const column = within(Math.max(panel, 0) % across, panel < 0 ? 0 : way[1], across);
    over = { panel: Math.min(number - 1, row * across + column), patch: null };
    paint();
    value.textContent = `${frame.panels[over.panel].title}, highest ${short(highest(frame, over.panel))}`;
    if (frame.small) besidePointer(value.textContent, over.panel);
  }

  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("keydown", step);
  const sized = new ResizeObserver(paint);
  sized.observe(root);
  names.forEach((name, number) => model.on(`change:${name}`, loads[number]));
  model.on("change:frame change:opacity change:traced", paint);
  loads.forEach(load => load());
  return () => { sized.disconnect();
    names.forEach((name, number) => model.off(`change:${name}`, loads[number]));
    model.off("change:frame change:opacity change:traced", paint); };
}

export default { render };
