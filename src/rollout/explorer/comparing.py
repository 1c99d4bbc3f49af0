"""Two views beside each other, whatever they differ in: their maps, difference and agreement."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rollout.explorer.captions import (
    block_words,
    caption,
    head_words,
    knob_words,
    map_title,
    source,
    unit_of,
)
from rollout.explorer.panel import Frame, Ground, Panel, difference_end, ends
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.maths.metrics import rank_correlation
from rollout.names import one_line
from rollout.settings import METHODS, titled

# From this rank correlation on, in words.
WORDS = (
    (0.95, "nearly the same order of patches"),
    (0.7, "much the same order of patches"),
    (0.4, "partly the same order of patches"),
    (-0.2, "hardly anything in common"),
    (-1.0, "rather the opposite order of patches"),
)
UNEQUAL = "The views have {} and {} patches, so there is no difference and no rank correlation."
MEANINGS = "Their values mean different things: compare them on own scales."


def compared_frame(session: Session, view: View, kept: View) -> Frame:
    """The view's map, the kept one's, and the first minus the second where their grids are equal.

    On own scales the difference is that of each map's shares of its sum.
    """
    other = session.beside or session
    now = session.relevance(view.method, view.target, view.settings)
    then = other.relevance(kept.method, kept.target, kept.settings)
    traced = [view.settings.query, kept.settings.query]
    scales = ends([now, then], view.scale, traced, shared=view.shared_scale)
    titles = _titles(session, view, other, kept)
    units = unit_of(session, view), unit_of(other, kept)
    ground = Ground(
        None if other is session else other.picture(), other.recording.layout.extent, traced[1]
    )
    grounds, names = (None, ground), ("now", "kept")
    panels = [
        Panel(title, values, high, low, over=True, unit=unit, name=name, ground=under)
        for title, values, (low, high), unit, name, under in zip(
            titles, (now, then), scales, units, names, grounds, strict=True
        )
    ]
    if now.shape == then.shape:
        panels.append(_difference(now, then, view, panels[0].high))
    apart = caption(session, view), caption(other, kept)
    same = apart[0] == apart[1] and view.source == kept.source
    beside = "" if same else f"; kept: {source(kept)}: {apart[1]}"
    return Frame(
        tuple(panels),
        len(panels),
        view.opacity,
        view.settings.query,
        view.scale,
        view.shared_scale,
        extent=session.recording.layout.extent,
        caption=apart[0] + beside,
        source=source(view),
        said=_said(now, then, units, shared=view.shared_scale),
    )


def _difference(now: np.ndarray, then: np.ndarray, view: View, high: float) -> Panel:
    values, unit = now - then, "difference"
    if not view.shared_scale:
        shares = [one / (one.sum() or 1) for one in (now, then)]
        values, unit = shares[0] - shares[1], "difference of shares"
        high = difference_end(values, view.scale)
    return Panel("now minus kept", values, high, signed=True, unit=unit, name="difference")


def _titles(session: Session, view: View, other: Session, kept: View) -> tuple[str, str]:
    """What each differs in; the method of both where it is one."""
    now, then = _parts(session, view), _parts(other, kept)
    apart = [name for name in now if now[name] != then[name]]
    if not apart:
        return f"now: {map_title(session, view, view.target)}", "kept: the same"
    words = [
        ", ".join(part[name] or "default" for name in apart if part[name] or name != "target")
        for part in (now, then)
    ]
    return f"now: {words[0]}", f"kept: {words[1]}"


def _parts(session: Session, view: View) -> dict[str, str]:
    """All that decides a map, in words."""
    gradients = METHODS[view.method].gradients
    return {
        "model": one_line(Path(view.model).name),
        "image": one_line(Path(view.image).name),
        "method": titled(view.method, view.settings),
        "target": session.short_label(view.target) if gradients else "",
        "blocks": block_words(session, view),
        "head": head_words(view),
        **knob_words(view),
    }


def _said(now: np.ndarray, then: np.ndarray, units: tuple[str, str], *, shared: bool) -> str:
    """What the comparison comes to."""
    meanings = [MEANINGS] if shared and units[0] != units[1] else []
    if now.shape != then.shape:
        grids = (" \u00d7 ".join(map(str, one.shape)) for one in (now, then))
        return " ".join([UNEQUAL.format(*grids), *meanings])
    return " ".join([agreement(now, then), *meanings])


def agreement(now: np.ndarray, then: np.ndarray) -> str:
    """Spearman's rank correlation of two maps, in words."""
    found = rank_correlation(torch.from_numpy(now)[None], torch.from_numpy(then)[None]).item()
    if np.isnan(found):
        return "One map is the same everywhere, so there is no rank correlation."
    words = next((words for least, words in WORDS if found >= least), WORDS[-1][1])
    return f"Rank correlation {found:.2f}: {words}."


def keep(view: View) -> View:
    """The same view, kept beside what follows; a second click lets it go."""
    kept = view.kept() if view.compare_with is None else None
    return replace(view.kept(), compare_with=kept)
