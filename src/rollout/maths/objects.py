"""Maps against interventions: what a map gives each object, and what its removal does to a logit.

The truth of an object is its drop: the target's logit with it, less the logit of the same scene
drawn without it. The checks are those of Hesse et al. ("FunnyBirds", 2023) for one case:

    shares: (objects,), what of the map lies on each object, as a part of what lies on any.
    drops: (objects,), by how much the target's logit falls when that object goes.
"""

import math

import torch
from torch import Tensor

from rollout.maths.metrics import rank_correlation

MATTERS = 0.1  # of the largest drop: an object below that does not matter


def object_shares(saliency_map: Tensor, coverages: Tensor) -> Tensor:
    """Of the map's mass on objects the part on each: (rows, columns), (objects, rows, columns).

    NaN where the map has nothing on any object.
    """
    on_each = (saliency_map * coverages).sum(dim=(1, 2))
    return on_each / on_each.sum()


def drop_correlation(shares: Tensor, drops: Tensor) -> float:
    """Spearman's correlation of shares and drops; NaN where all shares are equal."""
    return float(rank_correlation(shares[None, None], drops[None, None]))


def deletion_check(shares: Tensor, drops: Tensor) -> float:
    """What the removal of the most relevant object does, as a part of the most that any does.

    1 is the object that matters most; an object whose removal helps the target counts as 0.
    """
    if not _has_effect(shares, drops):
        return math.nan
    return float((drops[shares.argmax()] / drops.max()).clamp(min=0))


def irrelevant_objects(shares: Tensor) -> tuple[int, ...]:
    """The half of the objects, rounded down, that has least of the map: preservation drops it."""
    return tuple(sorted(shares.argsort(stable=True)[: len(shares) // 2].tolist()))


def preservation_check(drop: float, drops: Tensor) -> float:
    """What is left when the irrelevant half of the objects is gone together.

    1 is a target's logit that did not fall, 0 one that fell by as much as the most important object
    alone can make it fall, or by more.

    Args:
        drop: of the logit, without all of `irrelevant_objects`.
    """
    if drops.max() <= 0:
        return math.nan
    return float((1 - drop / drops.max()).clamp(0, 1))


def irrelevant_mass(shares: Tensor, drops: Tensor) -> float:
    """The share of the map on objects whose removal lowers the logit by next to nothing."""
    if not _has_effect(shares, drops):
        return math.nan
    return float(shares[drops < MATTERS * drops.max()].sum())


def _has_effect(shares: Tensor, drops: Tensor) -> bool:
    return bool(torch.isfinite(shares).all() and drops.max() > 0)
