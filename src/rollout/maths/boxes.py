"""The part of a map that stands out: its mask, and a box around each connected piece.

A patch stands out where its value is above the map's mean plus `threshold` standard deviations.
Patches are pieces of one box where they share an edge.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects, label
from torch import Tensor
from torch.nn.functional import interpolate

ROUNDING = 1e-9  # as a share of the largest value: a map without contrast has no mask


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; right and bottom lie just outside, so that width is right - left.

    Attributes:
        share: of the map's mass, on the patches of the mask that the box was drawn around.
    """

    left: int
    top: int
    right: int
    bottom: int
    share: float


def outstanding(saliency_map: Tensor, threshold: float = 0.0) -> Tensor:
    """Which patches are above the mean plus `threshold` standard deviations.

    Args:
        saliency_map: (batch, rows, columns).

    Returns:
        (batch, rows, columns) of bool; nothing where all values are the same, or not finite.
    """
    values = saliency_map.double().flatten(1)
    spread = values.std(dim=1, correction=0, keepdim=True)
    level = values.mean(dim=1, keepdim=True) + threshold * spread
    level = level + ROUNDING * values.abs().amax(dim=1, keepdim=True)
    return (values > level).view(saliency_map.shape)


def draw_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Patches drawn whole: (batch, rows, columns) of bool -> (batch, height, width)."""
    drawn = interpolate(mask.float().unsqueeze(1), size, mode="nearest-exact")
    return drawn.squeeze(1).bool()


def find_boxes(
    saliency_map: Tensor, size: tuple[int, int], threshold: float = 0.0
) -> list[list[Box]]:
    """A box around each connected piece of the mask, in pixels of an image of `size`.

    Args:
        saliency_map: (batch, rows, columns), non-negative.
        size: (height, width) that the patch grid covers.

    Returns:
        For each map its boxes, the one with the largest share of the mass first.
    """
    masks = outstanding(saliency_map, threshold).numpy()
    return [
        _boxes(values, mask, size)
        for values, mask in zip(saliency_map.double().numpy(), masks, strict=True)
    ]


def _boxes(values: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> list[Box]:
    pieces, _ = label(mask)
    total = values.sum() or 1.0
    found = []
    for number, (rows, columns) in enumerate(find_objects(pieces), start=1):
        piece = pieces[rows, columns] == number
        share = float(values[rows, columns][piece].sum() / total)
        top, bottom = (_pixel(edge, values.shape[0], size[0]) for edge in (rows.start, rows.stop))
        left, right = (
            _pixel(edge, values.shape[1], size[1]) for edge in (columns.start, columns.stop)
        )
        found.append(Box(left, top, right, bottom, share))
    return sorted(found, key=lambda box: -box.share)


def _pixel(edge: int, patches: int, pixels: int) -> int:
    """The first pixel beyond an edge: a pixel belongs to the patch in which its centre lies."""
    return -((patches - 2 * edge * pixels) // (2 * patches))
