"""What the mathematics is given, looked at before it is used: one sentence says what is wrong."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rollout.errors import shown
from rollout.settings import is_index

MOST_PIXELS = 2**16  # along one side: more is a mistake, and no memory holds it


def check_tensor(name: str, value: object, axes: str) -> None:
    """Refuse what is no tensor of real numbers with these axes, such as "batch, rows, columns"."""
    if not isinstance(value, Tensor):
        cure = "; torch.from_numpy makes one" if isinstance(value, np.ndarray) else ""
        raise TypeError(f"{name} must be a tensor ({axes}), got {type(value).__name__}{cure}")
    check_real(name, value)
    if value.dim() != len(axes.split(",")) or 0 in value.shape:
        raise ValueError(f"{name} must be ({axes}) and not empty, got shape {tuple(value.shape)}")


def check_real(name: str, value: Tensor) -> None:
    """Refuse tensors without values, and those that hold anything but real numbers in rows."""
    if value.is_meta or value.is_complex() or value.is_quantized or value.layout != torch.strided:
        kind = "on the device 'meta'" if value.is_meta else f"{value.dtype}, {value.layout}"
        raise ValueError(f"{name} must be an ordinary tensor of real numbers, got one {kind}")


def check_shapes(**tensors: Tensor) -> None:
    """Refuse tensors of different shapes, by their names."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if len(set(shapes.values())) > 1:
        said = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes must be the same, got {said}")


def check_array(name: str, value: object, axes: str) -> None:
    """As `check_tensor`, of numpy."""
    if not isinstance(value, np.ndarray):
        cure = "; .numpy() makes one" if isinstance(value, Tensor) else ""
        raise TypeError(f"{name} must be a numpy array ({axes}), got {type(value).__name__}{cure}")
    if value.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")
    if value.ndim != len(axes.split(",")) or not value.size:
        raise ValueError(f"{name} must be ({axes}) and not empty, got shape {value.shape}")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no finite number; numpy's are some, True and False are none."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    plain = value.item() if number and hasattr(value, "item") else value  # of numpy's
    if not number or not abs(plain) < 1e300:
        raise ValueError(f"{name} must be a number, got {shown(value)}")


def check_index(name: str, value: Any, length: int) -> None:
    """Refuse what is no place in a sequence of this length."""
    if not is_index(value) or not 0 <= value < length:
        raise ValueError(f"{name} must be in [0, {length - 1}], got {shown(value)}")


def check_pair(name: str, value: object, expected: str) -> tuple[int, int]:
    """Two whole numbers as Python's own, as numpy's of few bits overflow; (1.5, 2) is refused."""
    pair = list(value) if isinstance(value, tuple | list) else []
    if len(pair) != 2 or not all(is_index(one) for one in pair):
        raise ValueError(f"{name} must be two whole numbers, {expected}; got {shown(value)}")
    return int(pair[0]), int(pair[1])


def check_size(name: str, value: Any, expected: str = "(height, width)") -> tuple[int, int]:
    """The size of a picture or a grid, as `check_pair` gives it."""
    height, width = check_pair(name, value, expected)
    if not (1 <= height <= MOST_PIXELS and 1 <= width <= MOST_PIXELS):
        raise ValueError(f"{name} must be {expected} from 1 to {MOST_PIXELS}, got {shown(value)}")
    return height, width
