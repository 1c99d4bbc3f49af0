"""What was shown before: one step back for each thing that a hand did."""

from dataclasses import fields
from time import monotonic

from rollout.explorer.view import View

TOGETHER = 1.0  # seconds between two moves of one knob that are one step
MOST = 100


class History:
    """Views, the last on top."""

    def __init__(self) -> None:
        self._views: list[View] = []
        self._last: tuple[frozenset[str], float] = frozenset(), 0.0

    def moved(self, before: View, view: View) -> None:
        """Remember what was shown; the many moves of a slider that is dragged are one."""
        if before == view:
            return
        (knobs, when), now = self._last, monotonic()
        self._last = changed(before, view), now
        if not (self._views and self._last[0] == knobs and now - when < TOGETHER):
            self._views = [*self._views, before][-MOST:]

    def back(self) -> View | None:
        """What was shown before; None at the start."""
        self._last = frozenset(), 0.0
        return self._views.pop() if self._views else None


def changed(before: View, view: View) -> frozenset[str]:
    """The names of what differs."""
    pairs = ((before, view), (before.settings, view.settings))
    return frozenset(
        field.name
        for one, other in pairs
        for field in fields(one)
        if field.name != "settings" and getattr(one, field.name) != getattr(other, field.name)
    )
