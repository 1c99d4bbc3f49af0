// Where the explorer meets the page around it. Keys stop here, a kernel that is gone is said, status
// is read aloud, and a saved notebook keeps the widget's place, so that the picture below it is seen.

const VIEW = "application/vnd.jupyter.widget-view+json";
const STATE = "application/vnd.jupyter.widget-state+json";
const PLACE = "rollout-place";
const GONE = ["dead", "terminating", "restarting", "autorestarting"];
const KERNEL_GONE = "The kernel is gone, and with it what this explorer recorded: run its cell again.";

// An empty widget under our name: without it, a notebook without a kernel shows an error there.
const place = layout => ({ model_name: "HTMLModel", model_module: "@jupyter-widgets/controls",
  model_module_version: "2.0.0", state: { _dom_classes: [PLACE], layout: `IPY_MODEL_${layout}` } });
const hidden = { model_name: "LayoutModel", model_module: "@jupyter-widgets/base",
  model_module_version: "2.0.0", state: { display: "none" } };

function shownIds(notebook) {
  const ids = [];
  for (const cell of notebook.cells)
    if (cell.type === "code") for (const output of cell.outputs.toJSON()) ids.push(output.data?.[VIEW]?.model_id);
  return ids;
}

// The notebook's metadata with a place for this widget, and without those of widgets that are gone.
function keepPlace(notebook, id) {
  const all = notebook.getMetadata("widgets") || {}, saved = all[STATE] || { version_major: 2, version_minor: 0 };
  const ids = shownIds(notebook), state = { ...saved.state };
  if (!ids.includes(id) || state[id]) return;
  const ours = Object.keys(state).filter(key => (state[key].state?._dom_classes || []).includes(PLACE));
  for (const key of ours.filter(key => !ids.includes(key))) { delete state[key]; delete state[`${key}-layout`]; }
  state[id] = place(`${id}-layout`); state[`${id}-layout`] = hidden;
  notebook.setMetadata("widgets", { ...all, [STATE]: { ...saved, state } });
}

// What a screen reader says of controls that have no name of their own.
const NAMES = {
  ".rollout-discard .noUi-handle": ["discard ratio"],
  ".rollout-blocks .noUi-handle": ["first block that counts", "last block that counts"],
  ".rollout-opacity .noUi-handle": ["opacity of the map"],
  ".rollout-play button": ["play: add block after block", "back to the first block"],
  ".rollout-discard .widget-readout": ["discard ratio, as a number"],
  ".rollout-blocks .widget-readout": ["first and last block, as numbers"],
  ".rollout-opacity .widget-readout": ["opacity, as a number"],
};

function set(part, name, value) {
  if (part.getAttribute(name) !== value) part.setAttribute(name, value);
}

function nameParts(root) {
  for (const [where, names] of Object.entries(NAMES))
    root.querySelectorAll(where).forEach((part, index) => set(part, "aria-label", names[index % names.length]));
  for (const image of root.querySelectorAll(".rollout-beside img")) set(image, "alt", "the image as the network saw it");
  for (const part of root.querySelectorAll(".widget-readout[contenteditable]")) set(part, "role", "textbox");
  for (const group of root.querySelectorAll(".rollout-group")) {
    const named = [...group.classList].find(one => one.startsWith("rollout-group-"));
    set(group, "role", "group");
    set(group, "aria-label", named.slice("rollout-group-".length));
  }
  for (const button of root.querySelectorAll(".widget-toggle-button"))
    set(button, "aria-pressed", String(button.classList.contains("mod-active")));
}

function render({ model, el }) {
  const context = model.widget_manager?.context, session = context?.sessionContext;
  const gone = document.createElement("div"), said = document.createElement("div");
  gone.className = "rollout-gone"; gone.setAttribute("role", "alert");
  said.className = "rollout-said"; said.setAttribute("role", "status");
  el.append(gone, said);
  const root = () => el.closest(".rollout-explorer");

  // Plain keys are the explorer's; with Ctrl they are the notebook's, which then can still be saved.
  function guard(event) {
    const command = event.ctrlKey || event.metaKey;
    if (!root()?.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !command && !event.altKey);
    const typing = event.target.matches("input[type=text], input[type=search], input[type=number]");
    if (command && event.key === "z" && !typing) { event.preventDefault(); model.send({ kind: "undo" }); }
  }

  // Once gone is gone for good: a kernel of the same name has no memory of the explorer.
  const kernel = session?.session?.kernel;
  function check() {
    if (!kernel || kernel === session.session?.kernel && !GONE.includes(kernel.status)) return;
    gone.textContent = KERNEL_GONE;
    root()?.classList.add("rollout-dead");
  }
  const save = (_, state) => { if (state === "started") keepPlace(context.model, model.get("shown")); };
  const say = () => { said.textContent = model.get("said"); };

  const size = () => root()?.style.setProperty("--rollout-text", model.get("text"));

  let over = false;
  const name = () => { if (root()) nameParts(root()); };  // none while the explorer is taken away
  const watch = new MutationObserver(name);
  function attached() {
    if (over) return;
    if (!root()) return void requestAnimationFrame(attached);
    name();
    size();
    watch.observe(root(), { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
  }

  attached();
  window.addEventListener("keydown", guard, true);
  model.on("change:said", say);
  model.on("change:text", size);
  context?.saveState?.connect(save);
  session?.kernelChanged.connect(check);
  session?.statusChanged.connect(check);
  return () => {
    over = true;
    watch.disconnect();
    window.removeEventListener("keydown", guard, true);
    model.off("change:said", say);
    model.off("change:text", size);
    context?.saveState?.disconnect(save);
    session?.kernelChanged.disconnect(check);
    session?.statusChanged.disconnect(check);
  };
}

export default { render };
