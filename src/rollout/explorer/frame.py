"""From a view to what is drawn: panels of maps with their scales, for the browser and for files."""

from dataclasses import dataclass, replace

import numpy as np

from rollout.explanations.targets import Chosen
from rollout.explorer.captions import caption, rest, source
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.maths.dominance import above, scale_top, shared_top
from rollout.maths.token_layout import Extent
from rollout.models.outputs import as_text
from rollout.names import one_line
from rollout.settings import METHODS, titled

Patch = tuple[int, int]


@dataclass(frozen=True)
class Panel:
    """One map.

    Attributes:
        values: (rows, columns) float32.
        high: the value shown brightest; the darkest is 0, or -high where the map has two signs.
        over: whether it lies over the image.
        signed: whether it is a difference.
        unit: what the values mean, for a bar of the colours; "" draws none.
    """

    title: str
    values: np.ndarray
    high: float
    over: bool = False
    signed: bool = False
    unit: str = ""

    @property
    def low(self) -> float:
        return -self.high if self.signed else 0.0

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
        shared: whether the panels share one scale.
        traced_unit: what the values mean where a patch is traced.
        row_labels, column_labels: of the rows and columns of panels; panels have no titles then.
        extent: the pixels of the image that the maps cover; None is all of it.
        caption: blocks, heads and all else that made the maps; `source` is model and image.
    """

    panels: tuple[Panel, ...]
    across: int
    opacity: float
    patch: Patch | None = None
    shared: bool = True
    traced_unit: str = ""
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    extent: Extent | None = None
    caption: str = ""
    source: str = ""

    def bar(self, panel: Panel) -> tuple[float, float]:
        """Where the panel's bar begins and ends; one bar for panels of many scales has shares."""
        common = not self.row_labels or self.shared
        return (panel.low, panel.high) if common else (0.0, 1.0)


def main_frame(session: Session, view: View, hover: Patch | None = None) -> Frame:
    """Overlay and bare map; with a rival both overlays and their difference.

    Args:
        hover: a patch to trace instead of what the view traces.
    """
    shown = view if hover is None else view.with_settings(query=hover)
    targets = [view.target] if view.rival is None else [view.target, view.rival]
    maps = [session.relevance(view.method, target, shown.settings) for target in targets]
    highs = _highs(maps, shown)
    unit = unit_of(shown)
    panels = [
        Panel(_title(session, view, target), values, high, over=True, unit=unit)
        for target, values, high in zip(targets, maps, highs, strict=True)
    ]
    if view.rival is None:
        panels.append(replace(panels[0], title=_bare_title(maps[0], shown), over=False))
    else:
        difference = maps[0] - maps[1]
        names = " minus ".join(session.short_label(target) for target in targets)
        high = highs[0] if view.shared_scale else _highs([np.abs(difference)], shown)[0]
        panels.append(Panel(names, difference, high, signed=True, unit="difference of the two"))
    return Frame(
        tuple(panels),
        len(panels),
        view.opacity,
        shown.settings.query,
        view.shared_scale,
        unit_of(view.with_settings(query=(0, 0))),
        extent=session.recording.layout.extent,
        caption=caption(session, shown),
        source=source(view),
    )


def grid_frame(session: Session, view: View) -> Frame:
    """Every block (a row, the first on top) with every head (a column), each alone."""
    grid = session.grid(view.method, view.target, view.settings)
    blocks, heads = grid.shape[:2]
    maps = list(grid.reshape(-1, *grid.shape[2:]))
    panels = [
        Panel(f"block {place // heads + 1}, head {place % heads + 1}", values, high, over=True)
        for place, (values, high) in enumerate(zip(maps, _highs(maps, view), strict=True))
    ]
    unit = unit_of(view) if view.shared_scale else "part of the panel's highest"
    panels[-1] = replace(panels[-1], unit=unit)
    return Frame(
        tuple(panels),
        heads,
        view.opacity,
        view.settings.query,
        view.shared_scale,
        "",
        tuple(f"block {block + 1}" for block in range(blocks)),
        tuple(f"head {head + 1}" for head in range(heads)),
        session.recording.layout.extent,
        f"{METHODS[view.method].title}, each block and head alone, {rest(view)}",
        source(view),
    )


def traces(session: Session, view: View) -> list[np.ndarray] | None:
    """Of target and rival, the map of every patch, (patches, patches) each; None if that is long.

    With them the browser follows the mouse by itself.
    """
    targets = [view.target] if view.rival is None else [view.target, view.rival]
    found = [session.traces(view.method, target, view.settings) for target in targets]
    quick = [one for one in found if one is not None]
    return quick if len(quick) == len(found) else None


def unit_of(view: View) -> str:
    """What a value of the map means: the readout is the patch where one is traced."""
    unit = METHODS[view.method].unit
    if view.settings.legacy:
        return "value as vit-explain computes it"
    return unit.replace("the readout", "the patch") if view.settings.query else unit


def blind_to_class(view: View) -> bool:
    """Whether target and rival must have the same map."""
    return view.rival is not None and not METHODS[view.method].gradients


def _title(session: Session, view: View, target: Chosen | None) -> str:
    method = titled(view.method, view.settings)
    if not METHODS[view.method].gradients:
        return method
    if target is None:
        return f"{method}: {one_line(view.score_name)}" if view.score_name else method
    if isinstance(target, frozenset):
        return f"{method}: {session.short_label(target)}"
    answer = as_text(session.probabilities[target], session.logits[target])
    return f"{method}: {session.short_label(target)} ({answer})"


def _bare_title(values: np.ndarray, view: View) -> str:
    if view.settings.query is None:
        return "the map alone"
    row, column = view.settings.query
    return f"row {row}, column {column} keeps {values[row, column]:.2g} itself"


def _highs(maps: list[np.ndarray], view: View) -> list[float]:
    """Where each scale ends, or the one of all; 1 for maps that are 0 everywhere, which are dark.

    A patch that stands far above the rest does not count, see `scale_top`. Nor does a traced one,
    which keeps much of itself.
    """
    others = np.stack(maps)
    if view.settings.query is not None:
        others[:, *view.settings.query] = 0
    if view.shared_scale:
        return [shared_top(others)] * len(maps)
    return [scale_top(one) for one in others]
