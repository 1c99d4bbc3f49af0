"""A control for whatever makes a map more concentrated: the same map with more contrast."""

import torch
from torch import Tensor

from rollout.metrics import relative_entropy

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
    scaled = saliency_map.double() / saliency_map.double().amax(dim=(1, 2), keepdim=True)
    high = torch.full_like(scaled[:, :1, :1], MOST_CONTRAST)
    low = 1 / high
    for _ in range(50):  # entropy falls as the power grows: halve the interval, in logarithms
        power = (low * high).sqrt()
        too_flat = (relative_entropy(scaled**power) > entropy)[:, None, None]
        low, high = low.where(~too_flat, power), high.where(too_flat, power)
    return scaled**power
