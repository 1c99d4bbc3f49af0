"""Applications that are open in this kernel: running a cell again closes what it opened before.

ipywidgets keeps every widget alive until it is closed, and with it all that its callbacks hold.
"""

from typing import Any, Protocol

import ipywidgets as widgets
from IPython import get_ipython

MOST = 4  # alive in one kernel; a recording of 1370 tokens takes half a gigabyte
RETIRED = f"closed to free memory: a kernel keeps the last {MOST} explorers; run its cell again"
CLOSED = (
    "this explorer was closed, because its cell ran again or because a kernel keeps the last "
    f"{MOST} explorers; use a newer one, or run its cell again"
)


class Closable(Protocol):
    def close(self) -> None: ...

    def retire(self) -> None:
        """Close it, and leave a picture that says so."""


# Cell -> (one run of it, what that run opened)
_open: dict[str, tuple[str, list[Closable]]] = {}


def remember(application: Closable) -> None:
    """Close what earlier runs of this cell opened; of all others the last few stay alive."""
    cell, run = _this_run()
    earlier, opened = _open.get(cell, (run, []))
    if earlier != run:
        for stale in opened:
            stale.close()
        opened = []
    _open.pop(cell, None)
    _open[cell] = (run, [*opened, application])  # the newest stand last
    alive = [one for _, applications in _open.values() for one in applications]
    for old in alive[:-MOST]:
        old.retire()


def forget(application: Closable) -> None:
    """Take a closed application off the list."""
    for cell, (run, opened) in list(_open.items()):
        _open[cell] = (run, [other for other in opened if other is not application])


def _this_run() -> tuple[str, str]:
    """The cell by its number, or its code where the front end gives none, and the request's."""
    shell = get_ipython()
    request: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    code = str(request.get("content", {}).get("code", ""))
    cell = str(request.get("metadata", {}).get("cellId") or code)
    return cell, str(request.get("header", {}).get("msg_id", ""))


def close_with_parts(widget: widgets.Widget) -> None:
    """Close a widget and every widget it is made of, layouts and styles included."""
    parts: dict[str, widgets.Widget] = {}
    waiting = [widget]
    while waiting:
        part = waiting.pop()
        if part.comm is None or part.model_id in parts:  # closed, or seen
            continue
        parts[part.model_id] = part
        values = [getattr(part, name) for name in part.keys if part.has_trait(name)]
        for value in values:
            candidates = value if isinstance(value, list | tuple) else [value]
            waiting += [one for one in candidates if isinstance(one, widgets.Widget)]
    for part in parts.values():
        part.unobserve_all()
        widgets.Widget.close(part)
