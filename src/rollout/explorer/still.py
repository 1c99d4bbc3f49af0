"""The explorer's picture for pages without a kernel: beside the widget, and kept up to date.

The notebook's file holds it as an output of its own. A live explorer hides it (`browser/edge.css`).
"""

import asyncio
import base64
import uuid
from collections.abc import Callable

from IPython import get_ipython
from IPython.display import display

REST = 1.0  # seconds without a change before it is drawn, which takes a fifth of one


class Still:
    """One output, drawn again when hands have rested, and at the end of a cell.

    Args:
        draw: the PNG of what is shown, with a note.
        words: what is shown, for readers of plain text.
    """

    def __init__(self, draw: Callable[[str], bytes], words: Callable[[], str]) -> None:
        self._draw, self._words = draw, words
        self._name = ""  # the output's; "" before it is displayed
        self._timer: asyncio.TimerHandle | None = None

    def show(self) -> None:
        """Display it; the newest output of it is kept up to date."""
        self._name = uuid.uuid4().hex
        display(self._bundle(), raw=True, display_id=self._name)

    def changed(self) -> None:
        """Draw it again soon."""
        if not self._name:
            return
        self.forget()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel
            return
        self._timer = loop.call_later(REST, self.update)
        shell = get_ipython()
        if shell is not None:
            shell.events.register("post_run_cell", self._at_end_of_cell)

    def update(self, note: str = "") -> None:
        """Draw it again now."""
        self.forget()
        if self._name:
            display(self._bundle(note), raw=True, display_id=self._name, update=True)

    def forget(self) -> None:
        """Draw nothing that was to be drawn soon."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        shell = get_ipython()
        if shell is not None:
            shell.events.unregister("post_run_cell", self._at_end_of_cell)

    def _at_end_of_cell(self, _: object) -> None:
        self.update()

    def _bundle(self, note: str = "") -> dict[str, str]:
        png = base64.b64encode(self._draw(note)).decode()
        return {"image/png": png, "text/plain": self._words()}
