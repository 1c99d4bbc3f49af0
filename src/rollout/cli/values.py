"""What may stand after an option: a word of the command line becomes a value, or wrong usage."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from rollout.settings import METHODS, check_backward


def ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1), got {text!r}")
    return value


def ratios(text: str) -> list[float]:
    try:
        return [float(word) for word in words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers in [0, 1), got {text!r}") from None


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, got {text!r}")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return int(text)


def size(text: str) -> int | tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"must be pixels, as 224 or 224x336, got {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def csv(text: str) -> Path:
    if Path(text).suffix.lower() != ".csv":
        raise argparse.ArgumentTypeError(f"must be a file NAME.csv, got {text!r}")
    return Path(text)


def words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"must be words with commas between them, got {text!r}")
    return found


def check_backward_of(backward: str, methods: Iterable[str | None]) -> None:
    """Refuse what would change nothing, before anything is loaded."""
    try:
        for method in methods:
            check_backward(backward, method if method in METHODS else None)
    except ValueError as error:
        raise argparse.ArgumentError(None, str(error)) from error
