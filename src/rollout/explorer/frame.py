"""From a view to what is drawn: the map alone, beside another class's, or beside a kept view's."""

from dataclasses import replace

import numpy as np

from rollout.explanations.targets import Chosen
from rollout.explorer.captions import caption, map_title, source, unit_of
from rollout.explorer.comparing import compared_frame
from rollout.explorer.panel import Frame, Panel, Patch, difference_end, ends
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.settings import METHODS


def main_frame(session: Session, view: View, hover: Patch | None = None) -> Frame:
    """Overlay and bare map; with a rival or a kept view both overlays and their difference.

    Args:
        hover: a patch to trace instead of what the view traces.
    """
    if view.compare_with is not None:
        return compared_frame(session, view, view.compare_with)
    shown = view if hover is None else view.with_settings(query=hover)
    targets = view.targets
    maps = [session.relevance(view.method, target, shown.settings) for target in targets]
    traced = [shown.settings.query] * len(maps)
    scales = ends(maps, view.scale, traced, shared=view.shared_scale)
    unit = unit_of(session, shown)
    panels = [
        Panel(map_title(session, view, target), values, high, low, over=True, unit=unit)
        for target, values, (low, high) in zip(targets, maps, scales, strict=True)
    ]
    if view.rival is None:
        panels.append(replace(panels[0], title=_bare_title(maps[0], shown), over=False))
    else:
        names = [session.short_label(target) for target in targets]
        panels = [replace(one, name=name) for one, name in zip(panels, names, strict=True)]
        panels.append(_difference(maps[0] - maps[1], names, shown, panels[0].high))
    return Frame(
        tuple(panels),
        len(panels),
        view.opacity,
        shown.settings.query,
        view.scale,
        view.shared_scale,
        unit_of(session, view.with_settings(query=(0, 0))),
        extent=session.recording.layout.extent,
        caption=caption(session, shown),
        source=source(view),
    )


def _difference(values: np.ndarray, names: list[str], view: View, high: float) -> Panel:
    """Of target and rival: on the scale of both maps, or on one of its own."""
    if not view.shared_scale:
        rest = values.copy()
        if view.settings.query is not None:
            rest[view.settings.query] = 0
        high = difference_end(rest, view.scale)
    title, unit = " minus ".join(names), "difference of the two"
    return Panel(title, values, high, signed=True, unit=unit, name="difference")


def traces(session: Session, view: View) -> list[np.ndarray] | None:
    """Of target and rival, the map of every patch, (patches, patches) each; None if that is long.

    With them the browser follows the mouse by itself.
    """
    targets = view.targets
    found = [session.traces(view.method, target, view.settings) for target in targets]
    quick = [one for one in found if one is not None]
    return quick if len(quick) == len(found) else None


def blind_to_class(view: View) -> bool:
    """Whether target and rival must have the same map."""
    return view.rival is not None and not METHODS[view.method].gradients


def targets_shown(view: View) -> list[Chosen | None]:
    """The targets whose maps differ."""
    return [view.target] if blind_to_class(view) else view.targets


def _bare_title(values: np.ndarray, view: View) -> str:
    if view.settings.query is None:
        return "the map alone"
    row, column = view.settings.query
    return f"row {row}, column {column} keeps {values[row, column]:.2g} itself"
