"""How well a map finds an object whose mask is known: peak, average precision, share of mass.

All work on the patch grid. Maps are (batch, rows, columns); a mask enters as the share of each
patch that it covers, so that patches on an object's border count for what they are. Two measures
need no mask: how spread out a map is, and how alike two maps rank the patches.
"""

import math

import numpy as np
import torch
from scipy.stats import bootstrap, rankdata
from torch import Tensor

from rollout.maths.checks import (
    check_array,
    check_number,
    check_shapes,
    check_tensor,
)

MAPS = "batch, rows, columns"


def peak_on_object(saliency_map: Tensor, coverage: Tensor, *, threshold: float = 0.3) -> Tensor:
    """Whether the largest patch lies on the object, that is, is covered by more than `threshold`.

    The pointing game (Zhang et al., 2018) on patches. Returns (batch,) of bool.
    """
    _check_maps(saliency_map=saliency_map, coverage=coverage)
    check_number("threshold", threshold)
    peak = saliency_map.flatten(1).argmax(dim=1, keepdim=True)  # (batch, 1)
    return coverage.flatten(1).gather(1, peak).squeeze(1) > threshold


def average_precision(saliency_map: Tensor, coverage: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Area under the precision-recall curve of "this patch belongs to the object".

    Patches covered by more than `threshold` are the positives. Equal values are ranked together, as
    in scikit-learn. Returns (batch,); NaN where the object covers no patch.
    """
    _check_maps(saliency_map=saliency_map, coverage=coverage)
    check_number("threshold", threshold)
    return torch.stack(
        [
            ranking_precision(scores, relevant)
            for scores, relevant in zip(
                saliency_map.flatten(1), coverage.flatten(1) > threshold, strict=True
            )
        ]
    )


def ranking_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Average precision of one ranking: mean over relevant items of the precision at their rank."""
    check_tensor("scores", scores, "items")
    check_tensor("relevant", relevant, "items")
    check_shapes(scores=scores, relevant=relevant)
    relevant = relevant.bool()
    at_least = scores[None, :] >= scores[relevant][:, None]  # (relevant items, items)
    return ((at_least & relevant).sum(dim=1) / at_least.sum(dim=1)).mean()


def mean_average_precision(scores: Tensor, present: Tensor) -> Tensor:
    """How well each class's scores rank the images, mean over the classes: a scalar.

    Args:
        scores: (images, classes).
        present: (images, classes) of bool; a class that no image holds does not count.
    """
    check_tensor("scores", scores, "images, classes")
    check_tensor("present", present, "images, classes")
    check_shapes(scores=scores, present=present)
    held = present.any(dim=0).nonzero().flatten().tolist()
    if not held:
        raise ValueError("present must hold a class that some image has")
    precisions = [ranking_precision(scores[:, index], present[:, index]) for index in held]
    return torch.stack(precisions).mean()


def mass_on_object(saliency_map: Tensor, coverage: Tensor) -> Tensor:
    """Share of the map's mass that lies on the object, (batch,); a blind map has its area."""
    _check_maps(saliency_map=saliency_map, coverage=coverage)
    return (saliency_map * coverage).sum(dim=(1, 2)) / saliency_map.sum(dim=(1, 2))


def target_share(saliency_map: Tensor, target: Tensor, rival: Tensor) -> Tensor:
    """The map's mass on the target's patches as a share of that on target and rival together.

    0.5 means that the map does not tell them apart. Returns (batch,); NaN without mass on either.
    """
    _check_maps(saliency_map=saliency_map, target=target, rival=rival)
    on_target = (saliency_map * target).sum(dim=(1, 2))
    return on_target / (on_target + (saliency_map * rival).sum(dim=(1, 2)))


def relative_entropy(saliency_map: Tensor) -> Tensor:
    """Entropy of the map scaled to sum 1, as a share of log(patches), (batch,).

    1 is a map without contrast, 0 a single patch; NaN for a map that is 0 everywhere.
    """
    check_tensor("saliency_map", saliency_map, MAPS)
    shares = saliency_map.double().flatten(1)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return torch.special.entr(shares).sum(dim=1) / math.log(shares.shape[1])


def rank_correlation(saliency_map: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation over the patches, (batch,); equal values are ranked together.

    NaN where a map is the same everywhere.
    """
    _check_maps(saliency_map=saliency_map, other=other)
    ranks = [
        torch.from_numpy(rankdata(maps.detach().cpu().flatten(1).double(), axis=1))
        for maps in (saliency_map, other)
    ]
    one, two = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    return (one * two).sum(dim=1) / (one.square().sum(dim=1) * two.square().sum(dim=1)).sqrt()


def mean_interval(values: np.ndarray, *, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of several cases and where it would lie in others: (mean, low, high).

    A percentile bootstrap over the cases (Efron & Tibshirani, 1993), 2000 times, always the same.
    """
    values = np.asarray(values)
    check_array("values", values, "cases")
    check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    values = values.astype(float)
    if not np.abs(values).max() < 1e150:
        raise ValueError("values must be finite, and leave out cases where a measure is NaN")
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean, mean
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return mean, float(low), float(high)


def _check_maps(**maps: Tensor) -> None:
    for name, values in maps.items():
        check_tensor(name, values, MAPS)
    check_shapes(**maps)


MOST_CONTRAST = 100.0  # as an exponent


def match_entropy(saliency_map: Tensor, entropy: Tensor) -> Tensor:
    """The map raised to the power at which its `relative_entropy` is the given one.

    A power keeps the order of the patches: nothing is found that was not there, bright patches only
    become brighter. So what a map of the same entropy finds beyond this one is not contrast.

    Args:
        saliency_map: (batch, rows, columns), non-negative, not 0 everywhere.
        entropy: (batch,); values out of reach are met as closely as a power can.

    Returns:
        (batch, rows, columns), scaled to maximum 1.
    """
    check_tensor("saliency_map", saliency_map, MAPS)
    check_tensor("entropy", entropy, "batch")
    if len(entropy) != len(saliency_map):
        raise ValueError(f"entropy must be one for each map, got {len(entropy)}")
    scaled = saliency_map.double() / saliency_map.double().amax(dim=(1, 2), keepdim=True)
    high = torch.full_like(scaled[:, :1, :1], MOST_CONTRAST)
    low = 1 / high
    for _ in range(50):  # entropy falls as the power grows: halve the interval, in logarithms
        power = (low * high).sqrt()
        too_flat = (relative_entropy(scaled**power) > entropy)[:, None, None]
        low, high = low.where(~too_flat, power), high.where(too_flat, power)
    return scaled**power
