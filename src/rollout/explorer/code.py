"""The calls of `explain` that make what the explorer shows."""

from typing import Any

from rollout.demo.samples import sample_names
from rollout.explanations.targets import Chosen
from rollout.explorer.session import Session
from rollout.explorer.view import KNOBS, View, indices
from rollout.names import one_line, quoted
from rollout.settings import DEFAULTS, METHODS


def code_of(session: Session, view: View) -> str:
    """The calls that make what is shown, with the names of its classes."""
    other, kept = session.beside or session, view.compare_with
    beside = session.label(view.rival) if kept is None else other.label(kept.target)
    same_grid = session.grid_size == other.grid_size
    return as_code(view, session.label(view.target), beside, same_grid=same_grid)


def as_code(
    view: View,
    label: str | None = None,
    other_label: str | None = None,
    *,
    same_grid: bool = True,
) -> str:
    """The calls that make the view's maps, ready to run.

    Args:
        label, other_label: names of the target and of what it is compared with, for comments. Like
            all names they are data: whatever they hold, the code stays these calls.
        same_grid: whether the two views that are compared have the same grid of patches.
    """
    kept = view.compare_with
    views = [view] if kept is None else [view, kept]
    load = any("model" not in one.given for one in views)
    lines = ["from rollout import explain" + (", load_model" if load else "")]
    lines += ["from rollout.demo.samples import sample_path"] if any(map(_sample, views)) else []
    if kept is not None and same_grid:
        lines += ["from rollout.maths.metrics import rank_correlation"]
    lines += ["", *_sources(view)]
    lines += _call("explanation", view, view.target, label)
    if view.rival is not None:
        lines += _call("rival", view, view.rival, other_label)
        lines += ["difference = explanation.map - rival.map"]
    if kept is not None:
        lines += _kept(view, kept, other_label)
    if kept is not None and same_grid:
        lines += [f"difference = {_difference(view)}"]
        lines += ["agreement = rank_correlation(explanation.map, kept.map)"]
    return "\n".join([*lines, "explanation.plot()"])


def _kept(view: View, kept: View, label: str | None) -> list[str]:
    """The other view's call, after its model and image where they are others."""
    names, lines = {"model": "model", "image": "image"}, []
    for name, line in zip(names, _sources(kept, "kept_"), strict=False):
        if getattr(kept, name) != getattr(view, name):
            names[name] = f"kept_{name}"
            lines.append(line)
    return lines + _call("kept", kept, kept.target, label, **names)


def _difference(view: View) -> str:
    if view.shared_scale:
        return "explanation.map - kept.map"
    return "explanation.map / explanation.map.sum() - kept.map / kept.map.sum()"


def _sample(view: View) -> bool:
    return "image" not in view.given and view.image in sample_names()


def _sources(view: View, before: str = "") -> list[str]:
    """Where model and image come from."""
    sample = _sample(view)
    named = {
        "model": f"load_model({quoted(view.model)})",
        "image": f"sample_path({quoted(view.image)})" if sample else quoted(view.image),
    }
    called = {"model": one_line(view.model), "image": "other one" if before else "one"}
    return [
        f"# {before}{name}: the {called[name]} that explore() was given"
        if name in view.given
        else f"{before}{name} = {code}"
        for name, code in named.items()
    ] + [f"# score: {one_line(view.score_name)}, the one that explore() was given"] * (
        "score" in view.given
    )


def _call(
    name: str,
    view: View,
    target: Chosen | None,
    label: str | None,
    *,
    model: str = "model",
    image: str = "image",
) -> list[str]:
    """One call of `explain`; what is left at its default is left out."""
    lines = [
        f"{name} = explain(",
        f"    {model},",
        f"    {image},",
        f"    method={quoted(view.method)},",
    ]
    if target is not None:
        classes = ", ".join(map(str, indices(target)))
        shown = f"{{{classes}}}" if isinstance(target, frozenset) else classes
        lines.append(f"    target={shown}," + (f"  # {one_line(label)}" if label else ""))
    if "score" in view.given and METHODS[view.method].gradients:
        lines.append("    score=score,")
    default, settings = DEFAULTS, view.settings
    for knob in KNOBS:
        value = getattr(settings, knob)
        if value != getattr(default, knob):
            shown = quoted(value) if isinstance(value, str) else repr(value)
            lines.append(f"    {knob}={shown},{_counted(knob, value)}")
    return [*lines, ")"]


def _counted(knob: str, value: Any) -> str:
    """People count from 1."""
    words = {
        "start_block": lambda: f"  # from block {value + 1}",
        "end_block": lambda: f"  # to block {value}",
        "head": lambda: f"  # head {value + 1}",
    }
    return words[knob]() if knob in words else ""
