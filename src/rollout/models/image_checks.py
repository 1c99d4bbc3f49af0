"""What a person would want to be told of the images that they gave."""

import warnings
from collections.abc import Hashable
from functools import cache, lru_cache

import numpy as np
from PIL import Image
from torch import Tensor

from rollout.models.preprocess import Transform, apply_transform, normalisation

LARGEST_RAMP = 512  # pixels; what a crop hides hardly depends on the size


def check_normalised(images: Tensor, transform: Transform, name: str) -> None:
    """Warn of a tensor that looks like a picture as it is stored, in [0, 1] or [0, 255].

    Normalised images have negative numbers, unless all of it is brighter than the mean.

    Args:
        images: as they were given, (batch, channels, height, width).
        name: the model's.
    """
    low, high = float(images.min()), float(images.max())
    darkest, brightest = made_range(transform)
    plain = darkest < 0 and high <= 1
    if low < 0 or low == high or not (plain or high > max(20.0, 3 * brightest)):
        return
    warnings.warn(
        f"an image tensor whose numbers go from 0 to {1 if high <= 1 else 255} seems not to be "
        f"normalised: the transform of {name} makes numbers in [{darkest:.3g}, {brightest:.3g}]. "
        "Give paths or pictures, or apply model.transform first",
        stacklevel=2,
    )


def made_range(transform: Transform) -> tuple[float, float]:
    """What the transform makes of the darkest and the brightest pixels."""
    mean, std = (np.array(values) for values in normalisation(transform))
    return float(((0 - mean) / std).min()), float(((1 - mean) / std).max())


def hidden_share(size: tuple[int, int], transform: Transform) -> float:
    """The part of an image that its transform cuts off; 0 where nobody can tell.

    Args:
        size: (width, height) of the image, as Pillow has it.
    """
    return _hidden_share(size, transform) if isinstance(transform, Hashable) else 0.0


@lru_cache(256)
def _hidden_share(size: tuple[int, int], transform: Transform) -> float:
    """An image whose red grows from left to right and whose green from top to bottom says, in what
    is left of it, where that came from."""
    scale = min(1.0, LARGEST_RAMP / max(size))
    width, height = (max(1, round(scale * side)) for side in size)
    made = apply_transform(transform, _ramps(width, height))
    mean, std = normalisation(transform)
    if made.shape[0] != 3 or len(mean) != 3:
        return 0.0
    across = _span(made[0], pixels=made.shape[2]) * std[0]
    down = _span(made[1], pixels=made.shape[1]) * std[1]
    return 1 - min(1.0, across) * min(1.0, down) if across and down else 0.0


def _span(ramp: Tensor, pixels: int) -> float:
    """From its lowest edge to its highest: its numbers are those of the pixels' centres."""
    return float(ramp.max() - ramp.min()) * pixels / max(pixels - 1, 1)


@cache
def _ramps(width: int, height: int) -> Image.Image:
    across = np.linspace(0.5 / width, 1 - 0.5 / width, width)
    down = np.linspace(0.5 / height, 1 - 0.5 / height, height)[:, None]
    red, green = np.broadcast_arrays(255 * across, 255 * down)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=-1).round().astype(np.uint8))
