"""How blocks are put together where they are not chained as in rollout.

All take what `rollout.chain` takes; one block is in memory at a time, from the last to the first.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from rollout.maths.fusion import discard_each, full_precision
from rollout.maths.rollout import read_rows

Fused = Iterable[Sequence[Tensor]]  # last block first, (batch, query, key) for each fusion
Readouts = Sequence[Tensor | None]  # one per fusion; None is every token
Walk = Callable[[Fused, Sequence[float], Readouts], Tensor]
# What came of the blocks above, a block's fused matrix, the readout -> the same with this block.
Step = Callable[[Tensor | None, Tensor, Tensor | None], Tensor]


@full_precision
def accumulate(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ (I + fused[last]) @ ... @ (I + fused[first]): `chain` without normalising.

    Returns:
        As `chain`, (fusions, ratios, batch, key) or (fusions, ratios, batch, query, key).
    """
    rows = _walk(_accumulated, fused, discard_ratios, readouts)
    return rows if readouts[0] is None else rows.squeeze(3)


@full_precision
def add_rows(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ (fused[last] + ... + fused[first]): each block is read by itself; as `chain`."""
    return _walk(_with_row, fused, discard_ratios, readouts)


def last_block(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ fused[last]: no depth; the blocks below are not looked at. As `chain`."""
    return add_rows(islice(fused, 1), discard_ratios, readouts)


@full_precision
def mean_columns(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """The mean over the blocks and all queries, whatever is read: (fusions, ratios, batch, key)."""
    each = [_walk(_column, [matrices], discard_ratios, readouts) for matrices in fused]
    return torch.stack(each).mean(dim=0)


def _walk(step: Step, fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """One block is in memory at a time: (fusions, ratios, ...)."""
    found: list[list[Tensor | None]] = [[None for _ in discard_ratios] for _ in readouts]
    for matrices in fused:
        for matrix, readout, of_fusion in zip(matrices, readouts, found, strict=True):
            for place, kept in enumerate(discard_each(matrix, discard_ratios)):
                of_fusion[place] = step(of_fusion[place], kept, readout)
    return torch.stack([torch.stack([one for one in row if one is not None]) for row in found])


def _accumulated(above: Tensor | None, fused: Tensor, readout: Tensor | None) -> Tensor:
    """(batch, rows, tokens), one row where something is read."""
    if above is not None:
        return torch.baddbmm(above, above, fused)
    batch, _, tokens = fused.shape
    eye = torch.eye(tokens, device=fused.device, dtype=fused.dtype).expand_as(fused)
    if readout is None:
        return eye + fused
    return (readout.to(fused).expand(batch, tokens) + read_rows(readout, fused)).unsqueeze(1)


def _with_row(above: Tensor | None, fused: Tensor, readout: Tensor | None) -> Tensor:
    row = fused if readout is None else read_rows(readout, fused)
    return row if above is None else above + row


def _column(above: Tensor | None, fused: Tensor, readout: Tensor | None) -> Tensor:
    return fused.mean(dim=1)  # (batch, query, key) -> (batch, key)
