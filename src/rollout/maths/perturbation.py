"""What happens when patches go: in which order, how many at a time, and the area under the curve.

Deletion takes the most relevant away first, insertion brings them back first (Petsiuk et al.,
"RISE", 2018). Chefer et al. (2021) take pixels away, the most relevant first ("positive") or the
least relevant first ("negative"), and count how often the answer stays.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad


def rank_places(saliency: Tensor) -> Tensor:
    """Places, the most relevant first: (batch, places) -> (batch, places) of int64.

    Equal values come in an order that is always the same and has no direction: maps of methods that
    cut off negatives are 0 in many places, and reading order would start at the top left corner.
    """
    mixed = torch.randperm(saliency.shape[1], generator=torch.Generator().manual_seed(0))
    order = saliency[:, mixed].argsort(dim=1, descending=True, stable=True)
    return mixed[order]


def kept_by_deletion(order: Tensor, share: float, least: int = 0) -> Tensor:
    """The places that are left when the first `share` of the ranking is gone, in reading order."""
    gone = min(round(share * order.shape[1]), order.shape[1] - least)
    return order[:, gone:].sort(dim=1).values


def kept_by_insertion(order: Tensor, share: float, least: int = 0) -> Tensor:
    """The first `share` of the ranking, in reading order; at least `least` of them."""
    return order[:, : max(round(share * order.shape[1]), least)].sort(dim=1).values


def as_mask(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Places as a bool mask: (batch, some) -> (batch, *size)."""
    mask = torch.zeros(len(places), size[0] * size[1], dtype=torch.bool)
    return mask.scatter_(1, places, True).unflatten(1, size)


def area_under_curve(shares: Sequence[float], values: Tensor) -> Tensor:
    """By trapezoids, as a share of the whole width: a constant curve has its constant.

    Args:
        shares: where the curve was measured, rising.
        values: (..., shares).
    """
    places = torch.tensor(shares, dtype=values.dtype)
    if len(places) < 2 or not (places.diff() > 0).all():
        raise ValueError(f"shares must rise, at least two of them, got {list(shares)}")
    return torch.trapezoid(values, places, dim=-1) / (places[-1] - places[0])


def edge_strength(pictures: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """How much brightness changes within each patch: a map that knows the picture, not the network.

    Args:
        pictures: (batch, height, width, 3).

    Returns:
        (batch, rows, columns): the mean length of the gradient by central differences.
    """
    grey = pictures.mean(dim=-1)
    wide = pad(grey.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    down = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    across = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    return adaptive_avg_pool2d(torch.hypot(down, across).unsqueeze(1), grid_size).squeeze(1)
