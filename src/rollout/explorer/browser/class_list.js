// The classes by probability, under a field to search them. A click asks for a target, "vs" for a
// class to compare it with; Python decides and marks what is shown.

const MOST_ROWS = 60, IN_SIGHT = 5;

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

function matches(label, index, query) {
  return label.toLowerCase().includes(query) || String(index) === query;
}

function render({ model, el }) {
  const root = element("div", "rollout-classes", ""), list = element("div", "list", "");
  const search = element("input", "", "");
  search.type = "search"; search.placeholder = "search a class, by name or number";
  search.setAttribute("aria-label", search.placeholder);
  list.setAttribute("role", "group"); list.setAttribute("aria-label", "classes, the likeliest first");
  root.append(search, list); el.append(root);

  function ask(wanted) {
    model.set("wanted", { ...wanted, number: 1 + (model.get("wanted").number || 0) });
    model.save_changes();
    if (search.value) { search.value = ""; list.scrollTop = 0; paint(); }
    const index = wanted.target ?? wanted.toggle ?? (wanted.rival < 0 ? model.get("rival") : wanted.rival);
    list.querySelector(`[data-index="${index}"]`)?.classList.add("asked");
  }

  // What is shown stays in sight, however unlikely it is.
  function found() {
    const labels = model.get("labels"), logits = floats(model.get("logits"));
    const query = search.value.trim().toLowerCase();
    const all = [...labels.keys()].sort((one, two) => logits[two] - logits[one]);
    if (query) return all.filter(index => matches(labels[index], index, query));
    const shown = [model.get("target"), ...model.get("also"), model.get("rival")];
    const far = shown.filter(index => all.indexOf(index) >= IN_SIGHT);
    return [...far, ...all.filter(index => !far.includes(index))];
  }

  function row(index, labels, probabilities, logits) {
    const made = element("div", "row", ""), rival = index === model.get("rival");
    const chosen = index === model.get("target") || model.get("also").includes(index);
    made.classList.toggle("target", chosen);
    made.classList.toggle("rival", rival);
    made.title = `${index}: ${labels[index]}, logit ${logits[index].toFixed(2)}; click to explain this class, Shift+click to add it to the target`;
    const bar = element("span", "bar", "");
    const percent = 100 * probabilities[index], known = !Number.isNaN(percent);
    bar.style.width = known ? `${0.97 * percent}%` : "0";
    const compare = element("button", "", "vs");
    compare.title = rival ? "stop comparing" : `compare the target with ${labels[index]}`;
    compare.setAttribute("aria-label", compare.title);
    compare.setAttribute("aria-pressed", String(rival));
    compare.onclick = event => { event.stopPropagation(); ask({ rival: rival ? -1 : index }); };
    // A click anywhere in the row chooses; for keys and screen readers the name is a button.
    const name = element("button", "name", labels[index]);
    name.setAttribute("aria-pressed", String(chosen));
    made.onclick = event => ask(event.shiftKey ? { toggle: index } : { target: index });
    made.dataset.index = index;
    made.append(bar, name, element("span", "number logit", logits[index].toFixed(1)),
      element("span", "number", known ? `${percent.toFixed(1)} %` : ""), compare);
    return made;
  }

  function paint() {
    const labels = model.get("labels"), all = found();
    const probabilities = floats(model.get("probabilities")), logits = floats(model.get("logits"));
    const rows = all.slice(0, MOST_ROWS).map(index => row(index, labels, probabilities, logits));
    if (!rows.length) rows.push(element("div", "none", labels.length ? "no such class" : model.get("empty")));
    if (all.length > MOST_ROWS) rows.push(element("div", "none", `and ${all.length - MOST_ROWS} more: search`));
    const focused = list.contains(document.activeElement) && document.activeElement.closest(".row")?.dataset.index;
    list.replaceChildren(...rows);
    if (focused) list.querySelector(`[data-index="${focused}"] .name`)?.focus();
  }

  // Up and down lead from row to row, from the field into the list and back.
  root.onkeydown = event => {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!way) return;
    const names = [search, ...list.querySelectorAll(".name")], row = document.activeElement.closest(".row");
    const at = names.indexOf(row ? row.querySelector(".name") : document.activeElement);
    event.preventDefault();
    names[Math.max(0, Math.min(names.length - 1, at + way))].focus();
  };
  search.oninput = () => { list.scrollTop = 0; paint(); };
  search.onkeydown = event => {
    if (event.key === "Escape") { search.value = ""; paint(); }
    if (event.key === "Enter" && search.value.trim() && found().length) ask({ target: found()[0] });
  };
  const changes = "change:labels change:probabilities change:logits change:target change:also change:rival";
  const answered = () => list.querySelector(".asked")?.classList.remove("asked");
  model.on(changes, paint);
  model.on("change:answered", answered);
  paint();
  return () => { model.off(changes, paint); model.off("change:answered", answered); };
}

export default { render };
