"""Arguments that nobody should give: of every kind, and those that are nearly right."""

import random
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

Make = Callable[[], Any]  # a fresh value each time: iterators are spent, tensors get graphs

NASTY_TEXTS = (
    "",
    " ",
    "\n",
    "a\nb",
    "dog\r\n",
    "'; import os #",
    '"""',
    "\\",
    "$x^",
    "$\\frac{1}{0}$",
    "<script>alert(1)</script>",
    "&lt;",
    "../../up",
    "..",
    "/",
    "~",
    "C:\\x",
    "nul",
    "é🦊",
    "\u202egnp.exe",
    "\u2028",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "{}",
    "%s",
    "*",
    "?",
    "[",
    "-1",
    "1e400",
    "nan",
    "None",
    "x" * 5000,
)


class Odd:
    """An object of no use that can hardly be shown."""

    def __repr__(self) -> str:
        return "Odd()"


ANYTHING: tuple[tuple[str, Make], ...] = (
    ("None", lambda: None),
    ("True", lambda: True),
    ("False", lambda: False),
    ("0", lambda: 0),
    ("1", lambda: 1),
    ("-1", lambda: -1),
    ("2**63", lambda: 2**63),
    ("-10**30", lambda: -(10**30)),
    ("1.5", lambda: 1.5),
    ("0.0", lambda: 0.0),
    ("nan", lambda: float("nan")),
    ("inf", lambda: float("inf")),
    ("1j", lambda: 1j),
    ("Fraction", lambda: Fraction(1, 3)),
    ("Decimal", lambda: Decimal("0.5")),
    ("bytes", lambda: b"\x00\xff"),
    ("'dog'", lambda: "dog"),
    ("[]", list),
    ("()", tuple),
    ("{}", dict),
    ("set()", set),
    ("[None]", lambda: [None]),
    ("[[]]", lambda: [[]]),
    ("(1, 2)", lambda: (1, 2)),
    ("(1.5, 2)", lambda: (1.5, 2)),
    ("[0, 1, 2]", lambda: [0, 1, 2]),
    ("{'a': 1}", lambda: {"a": 1}),
    ("{1, 'x'}", lambda: {1, "x"}),
    ("range(2)", lambda: range(2)),
    ("slice", lambda: slice(1)),
    ("iterator", lambda: iter([1, 2])),
    ("generator", lambda: (number for number in "ab")),
    ("object", object),
    ("Odd()", Odd),
    ("class", lambda: int),
    ("function", lambda: len),
    ("error", lambda: KeyError("x")),
    ("module", lambda: nn.Identity()),
    ("Path()", Path),
    ("missing path", lambda: Path("no") / "such" / "file"),
    ("np.int64(1)", lambda: np.int64(1)),
    ("np.float32(0.5)", lambda: np.float32(0.5)),
    ("np.bool_", lambda: np.bool_(True)),
    ("np.str_", lambda: np.str_("cat")),
    ("np empty", lambda: np.zeros(0)),
    ("np 2x3", lambda: np.ones((2, 3))),
    ("np nan", lambda: np.full((1, 4, 6), np.nan)),
    ("np object", lambda: np.array([None, "x"], dtype=object)),
    ("np text", lambda: np.array(["a", "b"])),
    ("tensor scalar", lambda: torch.tensor(1)),
    ("tensor empty", lambda: torch.zeros(0)),
    ("tensor 2x3", lambda: torch.ones(2, 3)),
    ("tensor nan", lambda: torch.full((1, 4, 6), float("nan"))),
    ("tensor bool", lambda: torch.ones(1, 4, 6, dtype=torch.bool)),
    ("tensor complex", lambda: torch.ones(1, 4, 6, dtype=torch.complex64)),
    ("tensor meta", lambda: torch.ones(1, 4, 6, device="meta")),
    ("tensor sparse", lambda: torch.ones(4, 6).to_sparse()),
    ("image 1x1", lambda: Image.new("RGB", (1, 1))),
)


def texts() -> Iterator[tuple[str, Make]]:
    for text in NASTY_TEXTS:
        yield f"text {text[:20]!r}", partial(str, text)


def near(value: Any) -> list[tuple[str, Make]]:
    """Values that are nearly what is wanted."""
    if isinstance(value, Tensor):
        return _near_tensor(value)
    if isinstance(value, np.ndarray):
        return [*_near_array(value), ("as tensor", lambda: torch.from_numpy(value.copy()))]
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        numbers = (-1, value + 1, 7, 99, 2**31, 2**70, float(value), str(value), [value], (value,))
        numpy_numbers = (np.int64(value), np.uint8(value % 256), np.float64(value))
        return [(repr(one), partial(lambda one: one, one)) for one in (*numbers, *numpy_numbers)]
    if isinstance(value, float):
        numbers = (-value - 0.1, 1.0, 1e300, -0.0, 5e-324, 1 - 1e-12, str(value), [value])
        return [(repr(one), partial(lambda one: one, one)) for one in numbers]
    if isinstance(value, str):
        return [*texts(), ("upper", value.upper), ("listed", lambda: [value])]
    if isinstance(value, tuple | list):
        return _near_sequence(value)
    return []


def _near_tensor(value: Tensor) -> list[tuple[str, Make]]:
    real = value.is_floating_point()
    changed: list[tuple[str, Make]] = [
        ("one axis less", lambda: value[0]),
        ("one axis more", lambda: value[None]),
        ("no axis", lambda: value.flatten()[0]),
        ("flat", lambda: value.flatten()),
        ("empty batch", lambda: value[:0]),
        ("empty last axis", lambda: value[..., :0]),
        ("twice as many", lambda: torch.cat([value, value])),
        ("last axis shorter", lambda: value[..., :-1]),
        ("transposed", lambda: value.transpose(0, -1)),
        ("numpy", lambda: value.detach().numpy()),
        ("list", value.tolist),
        ("in a list", lambda: [value]),
        ("integers", lambda: value.int()),
        ("bytes", lambda: value.byte()),
        ("bool", value.bool),
        ("complex", lambda: value.to(torch.complex64)),
        ("meta", lambda: value.to("meta")),
        ("sparse", value.to_sparse),
    ]
    if real:
        changed += [
            ("all nan", lambda: value * float("nan")),
            ("one nan", lambda: _with(value, float("nan"))),
            ("one inf", lambda: _with(value, float("inf"))),
            ("negative", lambda: -value - 1),
            ("zeros", lambda: value * 0),
            ("huge", lambda: value * 1e38),
            ("tiny", lambda: value * 1e-45),
            ("half", value.half),
            ("bfloat16", value.bfloat16),
            ("double", value.double),
            ("requires grad", lambda: value.clone().requires_grad_()),
            ("strided", lambda: torch.stack([value, value], -1)[..., 0]),
            ("expanded", lambda: value[..., :1].expand(value.shape)),
        ]
    return changed


def _near_array(value: np.ndarray) -> list[tuple[str, Make]]:
    return [
        ("one axis less", lambda: value[0]),
        ("one axis more", lambda: value[None]),
        ("no axis", lambda: value.ravel()[0]),
        ("empty", lambda: value[:0]),
        ("last axis shorter", lambda: value[..., :-1]),
        ("transposed", lambda: value.T),
        ("list", value.tolist),
        ("objects", lambda: value.astype(object)),
        ("text", lambda: value.astype(str)),
        ("bool", lambda: value.astype(bool)),
        ("complex", lambda: value.astype(complex)),
        ("half", lambda: (value * 1).clip(0, 1).astype(np.float16)),
        ("integers", lambda: value.astype(int)),
        ("all nan", lambda: np.full(value.shape, np.nan)),
        ("one inf", lambda: np.where(np.arange(value.size).reshape(value.shape) == 1, np.inf, 0.5)),
        ("negative", lambda: -value.astype(float) - 1),
        ("zeros", lambda: value * 0),
        ("huge", lambda: value * 1e300),
        ("backwards", lambda: value[::-1]),
        ("read only", lambda: _frozen(value)),
    ]


def _near_sequence(value: Any) -> list[tuple[str, Make]]:
    kind = type(value)
    changed: list[tuple[str, Make]] = [
        ("none in it", kind),
        ("as the other", lambda: list(value) if kind is tuple else tuple(value)),
        ("iterator", lambda: iter(value)),
        ("dict", lambda: dict(enumerate(value))),
        ("nested", lambda: kind([value])),
        ("one more", lambda: kind([*value, value[-1]])),
        ("one less", lambda: kind(value[:-1])),
        ("backwards", lambda: kind(value[::-1])),
        ("only the first", lambda: value[0]),
    ]
    if all(isinstance(one, int | float) for one in value):
        changed += [("array", lambda: np.array(value)), ("tensor", lambda: torch.tensor(value))]
    for place, inner in ((0, value[0]), (-1, value[-1])) if value else ():
        for said, make in (*near(inner), *ANYTHING):
            changed.append((f"[{place}] {said}", partial(_replaced, value, place, make)))
    return changed


def _replaced(value: Any, place: int, make: Make) -> Any:
    items = list(value)
    items[place] = make()
    return type(value)(items)


def _with(value: Tensor, number: float) -> Tensor:
    changed = value.clone()
    changed.view(-1)[-1] = number
    return changed


def _frozen(value: np.ndarray) -> np.ndarray:
    value = value.copy()
    value.setflags(write=False)
    return value


def bad_value(rng: random.Random, good: Any) -> tuple[str, Any]:
    """Of one argument, with its description: two out of three are nearly right, where they can."""
    close = near(good)
    likely = close and rng.random() < 0.65
    said, make = rng.choice(close if likely else [*ANYTHING, *texts()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as numpy's, of numbers that do not fit
        return said, make()
