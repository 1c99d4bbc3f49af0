"""Text with a button that copies it: only the browser can reach the clipboard."""

import anywidget
import traitlets

_ESM = """
function render({ model, el }) {
  const text = document.createElement("pre"), button = document.createElement("button");
  button.textContent = "Copy";
  button.className = "jupyter-button";
  text.style.cssText = "margin:8px 0;padding:8px;overflow-x:auto;user-select:text;" +
    "font:12px/1.45 var(--jp-code-font-family, monospace);" +
    "color:var(--jp-content-font-color1, #222);background:var(--jp-layout-color2, #eee)";
  const paint = () => { text.textContent = model.get("text"); };
  button.onclick = async () => {
    getSelection().selectAllChildren(text);  // where the clipboard is closed, Ctrl+C is left
    try {
      await navigator.clipboard.writeText(model.get("text"));
      button.textContent = "Copied";
    } catch {
      button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  model.on("change:text", paint);
  paint();
  el.append(button, text);
  return () => model.off("change:text", paint);
}
export default { render };
"""


class CopyText(anywidget.AnyWidget):
    """Attributes:
    text: shown as code.
    """

    _esm = _ESM
    text = traitlets.Unicode().tag(sync=True)
