"""Lessons: steps that set everything in the explorer, written in a small file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "lessons"


@dataclass(frozen=True)
class Step:
    """One question.

    Attributes:
        title: a few words.
        question: asked before the map is seen.
        caption, equation: said after it.
        view: what `explore` takes; all else is at its default.
        image: a sample's name or a path; "" is the image that the explorer was opened with.
    """

    title: str
    question: str = ""
    caption: str = ""
    equation: str = ""
    view: Mapping[str, Any] = field(default_factory=dict)
    image: str = ""


@dataclass(frozen=True)
class Lesson:
    title: str
    steps: tuple[Step, ...]


def lesson_names() -> list[str]:
    """The lessons that are shipped."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def read_lesson(source: str | Path) -> Lesson:
    """A shipped lesson by its name, or a file.

    Raises:
        ValueError: no such lesson, or a file that is none; says where and what is expected.
    """
    path = HERE / f"{source}.toml" if source in lesson_names() else Path(source)
    if not path.is_file():
        names = ", ".join(lesson_names())
        raise ValueError(f"no lesson {str(source)!r}: give the path of a file, or one of {names}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}; {COMPARE}") from error
    steps = content.get("step")
    if not isinstance(steps, list) or not steps:
        raise ValueError(f"{path} has no [[step]]; {COMPARE}")
    return Lesson(
        str(content.get("title", path.stem)),
        tuple(_step(path, number, one) for number, one in enumerate(steps, 1)),
    )


COMPARE = f"compare it with {HERE / 'five_questions.toml'}"


def _step(path: Path, number: int, content: Mapping[str, Any]) -> Step:
    known = {one.name: one for one in fields(Step)}
    unknown = sorted(set(content) - set(known))
    if unknown or "title" not in content:
        wrong = f"an unknown entry {unknown[0]!r}" if unknown else "no title"
        names = ", ".join(known)
        raise ValueError(f"step {number} of {path} has {wrong}; a step has a title, and of {names}")
    for name, value in content.items():
        if not isinstance(value, dict if name == "view" else str):
            kind = "a table, { method = ... }" if name == "view" else "a text in quotes"
            raise ValueError(f"{name} in step {number} of {path} must be {kind}, got {value!r}")
    return Step(**content)
