"""Where the explorer meets the page around it: keys, the kernel's end, what is read aloud."""

from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from rollout.explorer.browser.scripts import script, style


class Edge(anywidget.AnyWidget):
    """The first child of what it guards, which has the class `rollout-explorer`.

    Attributes:
        shown: the model id of the widget that the page displays.
        said: for screen readers: what is being done, or went wrong.
        text: size of the letters; 1 is the notebook's own.
        undo: called when the keys for it are pressed.
    """

    _esm = script("edge")
    _css = style("edge")
    shown = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    text = traitlets.Float(1.0).tag(sync=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.undo: Callable[[], object] = lambda: None
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, message: Mapping[str, Any], buffers: object) -> None:
        if message.get("kind") == "undo":
            self.undo()
