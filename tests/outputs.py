"""What two runs of a notebook left, compared: texts up to rounding, pictures up to a shade.

Two processors, or one and two threads, differ in the last digits of a sum; a rounded number may
then fall to the other side. More than that is another result.
"""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nbformat import NotebookNode
from PIL import Image, ImageSequence

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")
TEXTS = ("text/markdown", "text/plain")
SHADE = 2 / 255  # mean difference of two pictures


def texts(cell: NotebookNode) -> Iterator[str]:
    """All that a cell says in words and numbers."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        for kind in TEXTS:
            if kind in output.get("data", {}):
                yield output.data[kind]


def pictures(cell: NotebookNode) -> Iterator[np.ndarray]:
    """Each picture of a cell, (height, width, 3) in [0, 1]."""
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            png = io.BytesIO(base64.b64decode(output.data["image/png"]))
            with Image.open(png) as picture:
                yield np.asarray(picture.convert("RGB")) / 255


def frames(path: Path) -> list[np.ndarray]:
    """A picture, or each of an animation: (height, width, 3) in [0, 1]."""
    with Image.open(path) as file:
        return [np.asarray(frame.convert("RGB")) / 255 for frame in ImageSequence.Iterator(file)]


def same_text(one: str, two: str) -> bool:
    """The same words, and numbers that differ by one in their last digit at most; counts by 1 %.

    Spaces do not count: they align columns by the length of the numbers.
    """
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)) for text in (one, two)]
    pairs = zip(NUMBER.findall(one), NUMBER.findall(two), strict=False)
    return words[0] == words[1] and all(_close(*pair) for pair in pairs)


def _close(one: str, two: str) -> bool:
    left, right = (float(number.rstrip("%")) for number in (one, two))
    if one.isdigit() and two.isdigit():
        return abs(left - right) <= 0.01 * left
    return abs(left - right) <= 1.01 * max(map(_last_digit, (one, two)))


def _last_digit(number: str) -> float:
    """The value of one in the last digit that is written."""
    mantissa, _, exponent = number.rstrip("%").partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def same_picture(one: np.ndarray, two: np.ndarray) -> bool:
    """The same size, and on average less than a shade apart, overall and in each of 8 x 8 parts."""
    if one.shape != two.shape:
        return False
    apart = np.abs(one - two).mean(axis=2)
    parts = [part for row in np.array_split(apart, 8) for part in np.array_split(row, 8, axis=1)]
    return max(part.mean() for part in parts) < SHADE
