"""What the explorer shows, as data: one frozen view, its settings as JSON and as code."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rollout.demo.samples import sample_names
from rollout.explanations.targets import Chosen
from rollout.maths.checks import check_number
from rollout.names import one_line, quoted
from rollout.settings import DEFAULTS, METHODS, Settings, check_flag, check_method


@dataclass(frozen=True)
class View:
    """Everything that decides a picture of the explorer.

    Attributes:
        image: a sample's name or a path; for an image that was given as an object, what it is.
        model: its name.
        target, rival: class indices, or sets of them, of which the sum of logits is followed; the
            map is the target's, the rival is what it is compared with, None for neither.
        opacity: of the map over the image, where it is highest, in [0, 1].
        shared_scale: whether the maps beside each other share one scale.
        given: which of "model", "image" and "score" only the caller of `explore` has, and code
            cannot name.
        score_name: what is followed instead of a class; "" where classes are.
    """

    image: str
    model: str
    method: str = "gradient_rollout"
    target: Chosen | None = None
    rival: Chosen | None = None
    settings: Settings = DEFAULTS
    opacity: float = 0.8
    shared_scale: bool = True
    given: frozenset[str] = frozenset()
    score_name: str = ""

    def __post_init__(self) -> None:
        check_method(self.method)
        check_number("opacity", self.opacity)
        check_flag("shared_scale", self.shared_scale)
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must be in [0, 1], got {self.opacity}")

    def with_settings(self, **knobs: Any) -> "View":
        return replace(self, settings=replace(self.settings, **knobs))


def indices(target: Chosen | None) -> list[int]:
    """The classes of a target, in order."""
    if target is None:
        return []
    return sorted(target) if isinstance(target, frozenset) else [int(target)]


KNOBS = tuple(field.name for field in fields(Settings))


def as_keywords(view: View) -> dict[str, Any]:
    """The view as JSON can hold it; `explore(**keywords)` shows it again."""
    keywords = asdict(view)
    del keywords["given"]
    if not view.score_name:
        del keywords["score_name"]
    settings = keywords.pop("settings")
    for name in ("target", "rival"):
        if isinstance(keywords[name], frozenset):
            keywords[name] = sorted(keywords[name])  # JSON has no sets
    return keywords | settings


def from_keywords(image: str, model: str, given: frozenset[str], keywords: dict[str, Any]) -> View:
    """A view from what `explore` was given; targets are class indices.

    Raises:
        TypeError: a keyword that no view has.
    """
    known = {field.name for field in fields(View)} - {"image", "model", "given", "settings"}
    unknown = sorted(set(keywords) - known - set(KNOBS))
    if unknown:
        raise TypeError(
            f"explore() got an unexpected setting {unknown[0]!r}; there are "
            f"{', '.join(sorted(known | set(KNOBS)))}"
        )
    knobs = {name: value for name, value in keywords.items() if name in KNOBS}
    if isinstance(knobs.get("query"), list):
        knobs["query"] = tuple(knobs["query"])  # JSON has lists
    others = {name: value for name, value in keywords.items() if name in known}
    return View(image, model, settings=Settings(**knobs), given=given, **others)


def as_code(view: View, label: str | None = None, rival_label: str | None = None) -> str:
    """The calls of `explain` that make the view's maps, ready to run.

    Args:
        label, rival_label: names of target and rival, for comments. Like all names they are data:
            whatever they hold, the code stays these calls.
    """
    sample = "image" not in view.given and view.image in sample_names()
    lines = ["from rollout import explain" + ("" if "model" in view.given else ", load_model")]
    lines += ["from rollout.demo.samples import sample_path"] if sample else []
    lines += ["", *_sources(view, sample)]
    lines += _call("explanation", view, view.target, label)
    if view.rival is not None:
        lines += _call("rival", view, view.rival, rival_label)
        lines += ["difference = explanation.map - rival.map"]
    return "\n".join([*lines, "explanation.plot()"])


def _sources(view: View, sample: bool) -> list[str]:
    """Where model and image come from."""
    named = {
        "model": f"load_model({quoted(view.model)})",
        "image": f"sample_path({quoted(view.image)})" if sample else quoted(view.image),
    }
    called = {"model": one_line(view.model), "image": "one"}
    return [
        f"# {name}: the {called[name]} that explore() was given"
        if name in view.given
        else f"{name} = {code}"
        for name, code in named.items()
    ] + [f"# score: {one_line(view.score_name)}, the one that explore() was given"] * (
        "score" in view.given
    )


def _call(name: str, view: View, target: Chosen | None, label: str | None) -> list[str]:
    """One call of `explain`; what is left at its default is left out."""
    lines = [
        f"{name} = explain(",
        "    model,",
        "    image,",
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
