"""A patch that stands far above all others: whether a map has one, and where it comes from.

The rule, used for the scale of pictures and for what is said below them: leave out the highest
hundredth of the patches, at least one; a patch stands out that is more than FAR times what is then
the highest. On scenes of two objects attention rollout of DINOv2-S does so in 62 of 100 cases, and
in none once its first block is left out; that of the demo model in 4 of 100.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from torch import Tensor

from rollout.maths.checks import check_array

FAR = 4.0
FEW = 0.01
DRAWN = 5.0  # times the uniform share: a patch that draws more has entered
HELPS = 0.5  # of the share before: what is left of it where leaving blocks out is worth a try


def highest_of_rest(saliency_map: np.ndarray) -> float:
    """The highest value once the highest hundredth of the patches, at least one, is left out."""
    left_out = few(saliency_map.size)
    if saliency_map.size <= left_out:
        return 0.0
    return float(np.sort(saliency_map, axis=None)[-1 - left_out])


def few(patches: int) -> int:
    """How many patches may stand above the rest."""
    return max(1, int(FEW * patches + 0.5))


def stands_out(saliency_map: np.ndarray) -> bool:
    """Whether the highest patch is far above the rest; never on a grid of one patch."""
    if saliency_map.size < 2:
        return False
    return bool(saliency_map.max() > FAR * max(highest_of_rest(saliency_map), 0.0))


def above(saliency_map: np.ndarray, top: float) -> list[tuple[int, int]]:
    """The patches (row, column) that a scale leaves out, highest first; [] where they are many.

    Many are above where somebody chose the top by hand; that is no matter of single patches.
    """
    rows, columns = np.nonzero(saliency_map > top)
    if len(rows) > few(saliency_map.size):
        return []
    order = np.argsort(-saliency_map[rows, columns].astype(float), kind="stable")
    return [(int(rows[place]), int(columns[place])) for place in order]


@dataclass(frozen=True)
class Dominance:
    """One patch that stands out in a map.

    Attributes:
        patch: (row, column), from 0.
        share: of the map's sum, in [0, 1].
        ratio: to the median patch; inf where that is 0.
        block: the first block, counted from 1, in which the patch draws much attention; None where
            it draws much in none, or nobody looked.
        start_block: the setting that takes at least half of the share away; None without one.
    """

    patch: tuple[int, int]
    share: float
    ratio: float
    block: int | None = None
    start_block: int | None = None

    def __str__(self) -> str:
        row, column = self.patch
        sentence = f"row {row}, column {column} holds {self.share:.0%} of the map"
        if isfinite(self.ratio):
            sentence += f", {self.ratio:.0f} times the median"
        if self.block is not None:
            sentence += f"; it enters in block {self.block}"
        if self.start_block is not None:
            sentence += f": try start_block={self.start_block}"
        return sentence


def find_dominance(saliency_map: np.ndarray) -> Dominance | None:
    """The patch that stands out in a map (rows, columns); None where none does."""
    check_array("saliency_map", saliency_map, "rows, columns")
    if not stands_out(saliency_map):
        return None
    row, column = np.unravel_index(saliency_map.argmax(), saliency_map.shape)
    highest, median = float(saliency_map.max()), float(np.median(saliency_map))
    ratio = highest / median if median > 0 else float("inf")
    return Dominance((int(row), int(column)), largest_share(saliency_map), ratio)


def largest_share(saliency_map: np.ndarray) -> float:
    """The largest patch's share of the map's sum; NaN for a map that is 0 everywhere."""
    total = float(saliency_map.sum(dtype=np.float64))
    return float(saliency_map.max()) / total if total > 0 else float("nan")


def attention_received(attention: Tensor) -> Tensor:
    """How much attention each token draws, mean over the queries: -> (batch, heads, key).

    Args:
        attention: one block's, (batch, heads, query, key); each query spends 1.
    """
    return attention.mean(dim=-2)


def trace_back(
    dominance: Dominance,
    drawn: Iterable[float],
    tokens: int,
    start_block: int,
    num_blocks: int,
    without: Callable[[int], np.ndarray],
) -> Dominance:
    """In which block the patch enters, and the cure where that leaves at most half of the share.

    Args:
        drawn: the share of all attention that the patch draws, block by block from `start_block`.
        tokens: how many share it.
        num_blocks: where the blocks that count end.
        without: the map (rows, columns) with another start_block; asked for at most once.
    """
    places = (place for place, share in enumerate(drawn) if share * tokens > DRAWN)
    place = next(places, None)
    if place is None:
        return dominance
    block = start_block + place + 1
    if block < num_blocks and largest_share(without(block)) <= HELPS * dominance.share:
        return replace(dominance, block=block, start_block=block)
    return replace(dominance, block=block)
