"""The part of a map that stands out: its mask, and a box around each connected piece.

A patch stands out where its value is above the map's mean plus `threshold` standard deviations.
Patches are pieces of one box where they share an edge.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor
from torch.nn.functional import pad

from rollout.maths.checks import check_number, check_size, check_tensor
from rollout.maths.token_layout import Extent

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
    check_tensor("saliency_map", saliency_map, "batch, rows, columns")
    check_number("threshold", threshold)
    values = saliency_map.double().flatten(1)
    spread = values.std(dim=1, correction=0, keepdim=True)
    level = values.mean(dim=1, keepdim=True) + float(threshold) * spread
    level = level + ROUNDING * values.abs().amax(dim=1, keepdim=True)
    return (values > level).view(saliency_map.shape)


def draw_mask(mask: Tensor, size: tuple[int, int], extent: Extent | None = None) -> Tensor:
    """Patches drawn whole: (batch, rows, columns) of bool -> (batch, height, width).

    Args:
        size, extent: as for `find_boxes`.
    """
    check_tensor("mask", mask, "batch, rows, columns")
    size = check_size("size", size)
    down, across = _edges((mask.shape[1], mask.shape[2]), size, extent)
    tall, wide = (torch.tensor(edges).diff() for edges in (down, across))
    drawn = mask.repeat_interleave(tall, dim=1).repeat_interleave(wide, dim=2)
    return pad(drawn, (across[0], size[1] - across[-1], down[0], size[0] - down[-1]))


def find_boxes(
    saliency_map: Tensor,
    size: tuple[int, int],
    threshold: float = 0.0,
    extent: Extent | None = None,
) -> list[list[Box]]:
    """A box around each connected piece of the mask, in pixels of an image of `size`.

    Args:
        saliency_map: (batch, rows, columns), non-negative.
        size: (height, width) of the image.
        extent: the pixels that the patch grid covers; None is all of them. What lies in padding,
            beyond the image, has no box.

    Returns:
        For each map its boxes, the one with the largest share of the mass first.
    """
    size = check_size("size", size)
    masks = outstanding(saliency_map, threshold).numpy()
    edges = _edges((saliency_map.shape[1], saliency_map.shape[2]), size, extent)
    return [
        _boxes(values, mask, *edges)
        for values, mask in zip(saliency_map.detach().double().cpu().numpy(), masks, strict=True)
    ]


def _boxes(values: np.ndarray, mask: np.ndarray, down: list[int], across: list[int]) -> list[Box]:
    pieces, _ = label(mask)
    total = values.sum() or 1.0
    found = []
    for number, (rows, columns) in enumerate(find_objects(pieces), start=1):
        piece = pieces[rows, columns] == number
        share = float(values[rows, columns][piece].sum() / total)
        left, right = across[columns.start], across[columns.stop]
        top, bottom = down[rows.start], down[rows.stop]
        if left < right and top < bottom:
            found.append(Box(left, top, right, bottom, share))
    return sorted(found, key=lambda box: -box.share)


def _edges(
    grid_size: tuple[int, int], size: tuple[int, int], extent: Extent | None
) -> tuple[list[int], list[int]]:
    """The first pixel beyond each edge of the patches, down and across.

    A pixel belongs to the patch in which its centre lies.
    """
    top, left, bottom, right = extent or (0, 0, *size)
    return _along(grid_size[0], size[0], top, bottom), _along(grid_size[1], size[1], left, right)


def _along(patches: int, pixels: int, begin: float, end: float) -> list[int]:
    start, one = Fraction(begin), (Fraction(end) - Fraction(begin)) / patches
    places = (ceil(start + edge * one - Fraction(1, 2)) for edge in range(patches + 1))
    return [min(max(place, 0), pixels) for place in places]
