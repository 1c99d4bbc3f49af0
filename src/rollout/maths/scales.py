"""Where the colours of a map begin and end, and how they run in between.

A map is scaled for the eye alone, and at the last moment: its values stay what they are.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from rollout.errors import shown
from rollout.maths.checks import check_array
from rollout.maths.dominance import highest_of_rest, stands_out

Scale = Literal["auto", "max", "percentile", "log"]
SCALES: tuple[Scale, ...] = get_args(Scale)
PERCENTILE = 99
LOWEST = 1e-4  # of the end of a logarithmic scale: where it begins at the lowest


def check_scale(scale: str) -> None:
    if not isinstance(scale, str) or scale not in SCALES:
        names = ", ".join(f'"{one}"' for one in SCALES)
        raise ValueError(f"scale must be one of {names}, got {shown(scale)}")


def scale_top(saliency_map: np.ndarray, scale: Scale = "auto") -> float:
    """The value that a picture shows brightest; 1 for a map that is 0 everywhere.

    Args:
        saliency_map: (rows, columns), non-negative.
        scale: "max" is the map's maximum, and so is "log"; "auto" too, unless a patch stands out:
            then the scale ends at the highest of the rest, so that the rest is seen; "percentile"
            is the 99th, whether a patch stands out or not.

    Raises:
        ValueError: another scale.
    """
    check_array("saliency_map", saliency_map, "rows, columns")
    check_scale(scale)
    top = 0.0
    if scale == "auto" and stands_out(saliency_map):
        top = highest_of_rest(saliency_map)
    elif scale == "percentile":
        top = float(np.percentile(saliency_map, PERCENTILE))
    # Beside zeros alone there is nothing to be seen.
    return top if top > 0 else float(saliency_map.max()) or 1.0


def shared_top(saliency_maps: Iterable[np.ndarray], scale: Scale = "auto") -> float:
    """The end of one scale for several maps: the highest of their own ends; 1 for zeros alone."""
    return max((scale_top(one, scale) for one in saliency_maps if one.any()), default=1.0)


def log_bottom(saliency_maps: Iterable[np.ndarray], top: float) -> float:
    """Where a logarithmic scale begins: at the lowest value above 0, but at LOWEST of its end."""
    lowest = min((float(one[one > 0].min()) for one in saliency_maps if (one > 0).any()), default=0)
    bottom = max(lowest, LOWEST * top)
    return bottom if bottom < top else top / 10  # one value alone is the end


def along_scale(values: np.ndarray, low: float, high: float, *, logarithmic: bool) -> np.ndarray:
    """How far up the colours each value lies, in [0, 1]: what is beyond an end is at the end."""
    if logarithmic:
        values = np.log(np.clip(values, low, high) / low) / np.log(high / low)
        return values.clip(0, 1)
    return np.clip((values - low) / (high - low), 0, 1)
