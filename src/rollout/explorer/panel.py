"""What is drawn: panels of maps with their scales, the same for the browser and for files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.maths.dominance import above
from rollout.maths.scales import Scale, log_bottom, scale_top, shared_top
from rollout.maths.token_layout import Extent

Patch = tuple[int, int]


@dataclass(frozen=True)
class Ground:
    """What lies under a panel that is of another view than the frame.

    Attributes:
        picture: (height, width, 3) in [0, 1]; None is the frame's.
        extent, patch: as of a `Frame`.
    """

    picture: np.ndarray | None
    extent: Extent | None
    patch: Patch | None


@dataclass(frozen=True)
class Panel:
    """One map.

    Attributes:
        values: (rows, columns) float32.
        high: the value shown brightest; the darkest is 0, or -high where the map has two signs.
        bottom: where a logarithmic scale begins; 0 for a scale that is none.
        over: whether it lies over the image.
        signed: whether it is a difference.
        unit: what the values mean, for a bar of the colours; "" draws none.
        name: a word for it where values of several panels are listed.
        note: said below it.
        ground: of another view; None is the frame's.
    """

    title: str
    values: np.ndarray
    high: float
    bottom: float = 0.0
    over: bool = False
    signed: bool = False
    unit: str = ""
    name: str = ""
    note: str = ""
    ground: Ground | None = None

    @property
    def low(self) -> float:
        return -self.high if self.signed else self.bottom

    def above(self, traced: Patch | None) -> list[Patch]:
        """The patches, other than the traced one, that are above the scale's end."""
        values = np.abs(self.values)
        if traced is not None:
            values[traced] = 0
        return above(values, self.high)


@dataclass(frozen=True)
class Frame:
    """Panels in rows of `across`.

    Attributes:
        patch: the patch (row, column) whose tokens are traced, outlined in each panel.
        scale: where the panels' scales end.
        shared: whether the panels share one scale.
        traced_unit: what the values mean where a patch is traced.
        row_labels, column_labels: of the rows and columns of panels; panels have no titles then.
        small: whether there are many panels, with one bar for all.
        picks: whether a click on a panel chooses it.
        extent: the pixels of the image that the maps cover; None is all of it.
        caption: blocks, heads and all else that made the maps; `source` is model and image.
        said: what a comparison comes to, in a sentence.
    """

    panels: tuple[Panel, ...]
    across: int
    opacity: float
    patch: Patch | None = None
    scale: Scale = "auto"
    shared: bool = True
    traced_unit: str = ""
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    small: bool = False
    picks: bool = False
    extent: Extent | None = None
    caption: str = ""
    source: str = ""
    said: str = ""

    def bar(self, panel: Panel) -> tuple[float, float]:
        """Where the panel's bar begins and ends; one bar for panels of many scales has shares."""
        return (panel.low, panel.high) if self.shared or not self.small else (0.0, 1.0)

    def under(self, panel: Panel) -> Ground:
        """What lies under a panel."""
        return panel.ground or Ground(None, self.extent, self.patch)


def ends(
    maps: Sequence[np.ndarray], scale: Scale, traced: Sequence[Patch | None], *, shared: bool
) -> list[tuple[float, float]]:
    """Of each map where its scale begins, which is not 0 for a logarithmic one, and ends.

    A traced patch, which keeps much of itself, does not count. A map that is 0 everywhere ends at
    1, which makes it dark.

    Args:
        traced: a patch (row, column) of each map, or None.
    """
    others = [one.copy() for one in maps]
    for one, patch in zip(others, traced, strict=True):
        if patch is not None:
            one[patch] = 0
    groups = [others] * len(others) if shared else [[one] for one in others]
    tops = [shared_top(group, scale) if shared else scale_top(group[0], scale) for group in groups]
    if scale != "log":
        return [(0.0, top) for top in tops]
    return [(log_bottom(group, top), top) for group, top in zip(groups, tops, strict=True)]


def difference_end(difference: np.ndarray, scale: Scale) -> float:
    """Where the scale of a difference ends, on both sides of 0; it has no logarithm."""
    return scale_top(np.abs(difference), "auto" if scale == "log" else scale)
