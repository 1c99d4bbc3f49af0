"""A button that brings a file of any size from the browser to Python."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget

from rollout.explorer.browser.scripts import script


class UploadButton(anywidget.AnyWidget):
    """Slices of a file come in order, and are put together again.

    Attributes:
        received: called with the name and the content of each file.
    """

    _esm = script("upload")
    _css = ".rollout-upload { width: calc(100% - 4px); margin: 2px; }"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.received: Callable[[str, bytes], object] = lambda name, content: None
        self._slices: list[bytes] = []
        self.on_msg(self._on_slice)

    def _on_slice(self, _: Any, message: Mapping[str, Any], buffers: Sequence[memoryview]) -> None:
        if message["index"] == 0:
            self._slices.clear()
        self._slices += map(bytes, buffers)
        if len(self._slices) == message["total"]:
            content = b"".join(self._slices)
            self._slices.clear()
            self.received(message["name"], content)
