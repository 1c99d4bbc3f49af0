// The canvas: the pointer, the keys, and what is said of the patch under them.

const HELP = "Arrow keys trace a patch, Escape lets it go.";
const HELP_GRID = "Arrow keys go from panel to panel, Enter shows one alone.";
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const FAST = 1500;  // milliseconds: keys that follow each other faster do not wait for Python

function render({ model, el }) {
  const root = document.createElement("div"), canvas = document.createElement("canvas");
  const value = document.createElement("div"), scratch = document.createElement("canvas");
  root.className = "rollout-canvas"; value.className = "value"; canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  root.append(value, canvas); el.append(root);
  let grey = null, loaded = null, places = null, over = null;
  let still = null;  // the map without a hovered patch
  let cursor = null, stepped = 0;  // where the last key led, and when

  function paint() {
    let frame = describe(model);
    const width = root.clientWidth;
    if (!frame || !grey || !width || loaded !== model.get("picture")) return;
    if (!frame.hovered) still = frame;
    if (over && model.get("follow")) frame = tracedFrom(model, frame, over.patch) || frame;
    // What stands beside is said of the map, not of the patch that is hovered.
    root.closest(".rollout-explorer")?.classList
      .toggle("rollout-tracing", String(frame.patch) !== String(still?.patch));
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
      paintPanel(pen, frame, index, box, grey, scratch, ratio);
      markAbove(pen, frame, index, box, !places.labelled);
      if (frame.patch) outline(pen, frame, box, frame.patch, "#fff");
      if (frame.panels[index].unit) paintBar(pen, frame, index, barBox(box, index), ink);
    });
    if (over && places.labelled) frameOf(pen, places.boxes[over.panel]);
    else if (over) outline(pen, frame, places.boxes[over.panel], over.patch, "#4fc3f7");
    paintText(pen, frame, places, ink);
    canvas.setAttribute("aria-label", describedIn(frame, places));
    tell(frame);
    canvas.dataset.number = frame.number;  // what a test or a benchmark waits for
    canvas.dataset.patch = frame.patch || "";
    canvas.dataset.paints = 1 + Number(canvas.dataset.paints || 0);
  }

  // In the grid one bar serves all, below the last row, from the first column on.
  const barBox = (box, index) => !places.labelled ? box
    : { ...box, x: places.boxes[0].x, width: Math.min(300, places.width - places.left) };

  const describedIn = (frame, places) => places.labelled ? `${frame.caption}. ${HELP_GRID}`
    : `${frame.panels.map(panel => panel.title).join("; ")}. ${frame.caption}. ${HELP}`;

  // The map's own value at the patch, and what the patch shows where it is traced.
  function tell(frame) {
    value.textContent = frame.caption;
    if (!over?.patch || !frame.panels[over.panel]) return;
    const [row, column] = over.patch, at = over.panel * frame.patches + row * frame.columns + column;
    const place = `${places.labelled ? frame.panels[over.panel].title + ", " : ""}row ${row}, column ${column}`;
    const own = still && still.values.length === frame.values.length ? still : frame;
    const traced = frame === own ? "" : `; traced from here it keeps ${frame.values[at].toPrecision(3)} itself`;
    value.textContent = `${place}: ${own.values[at].toPrecision(3)} in the map${traced}`;
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

  const within = (place, by, most) => Math.max(0, Math.min(most - 1, place + by));

  function step(event) {
    const frame = describe(model), way = MOVES[event.key];
    if (event.key === "Escape") { cursor = over = null; return report("escape", { panel: 0, patch: [0, 0] }); }
    if (!frame || !places || event.ctrlKey || event.metaKey) return;
    if (places.labelled) return stepPanel(event, frame, way);
    if (!way) return;
    event.preventDefault();
    const from = (Date.now() - stepped < FAST && cursor) || frame.patch || [0, 0];
    stepped = Date.now();
    cursor = [within(from[0], way[0], frame.rows), within(from[1], way[1], frame.columns)];
    report("step", { panel: 0, patch: cursor });
  }

  function stepPanel(event, frame, way) {
    const panel = over ? over.panel : -1, across = frame.across, down = frame.rowLabels.length;
    if (event.key === "Enter" && panel >= 0) return report("click", { panel, patch: [0, 0] });
    if (!way) return;
    event.preventDefault();
    const row = within(Math.floor(Math.max(panel, 0) / across), panel < 0 ? 0 : way[0], down);
    const column = within(Math.max(panel, 0) % across, panel < 0 ? 0 : way[1], across);
    over = { panel: row * across + column, patch: null };
    paint();
    value.textContent = `${frame.panels[over.panel].title}, highest ${short(highest(frame, over.panel))}`;
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
