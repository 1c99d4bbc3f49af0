"""How blocks are put together where they are not chained as in rollout.

All take what `rollout.chain` takes; one block is in memory at a time, from the last to the first,
of large ones only some queries.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from rollout.maths.fused_block import FusedBlock
from rollout.maths.fusion import full_precision, kept_rows
from rollout.maths.rollout import check_one_size, output_rows

Fused = Iterable[Sequence[Tensor]]  # last block first, (batch, query, key) for each fusion
Readouts = Sequence[Tensor | None]  # one per fusion; None is every token
Walk = Callable[[Fused, Sequence[float], Readouts], Tensor]


@full_precision
def accumulate(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ (I + fused[last]) @ ... @ (I + fused[first]): `chain` without normalising.

    Returns:
        As `chain`, (fusions, ratios, batch, key) or (fusions, ratios, batch, query, key).
    """
    rows: Tensor | None = None
    for block in map(FusedBlock.of, fused):
        rows = output_rows(block, discard_ratios, readouts) if rows is None else rows
        rows = rows + _products(rows, block, discard_ratios)
    assert rows is not None  # there is a block
    return rows if readouts[0] is None else rows.squeeze(3)


@full_precision
def add_rows(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ (fused[last] + ... + fused[first]): each block is read by itself; as `chain`."""
    total: Tensor | None = None
    for block in map(FusedBlock.of, fused):
        rows = output_rows(block, discard_ratios, readouts)
        products = _products(rows, block, discard_ratios)
        total = products if total is None else total + products
    assert total is not None  # there is a block
    return total if readouts[0] is None else total.squeeze(3)


def last_block(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """rows @ fused[last]: no depth; the blocks below are not looked at. As `chain`."""
    return add_rows(islice(fused, 1), discard_ratios, readouts)


def mean_columns(fused: Fused, discard_ratios: Sequence[float], readouts: Readouts) -> Tensor:
    """The mean over the blocks and all queries, whatever is read: (fusions, ratios, batch, key)."""
    each = []
    for block in map(FusedBlock.of, fused):
        tokens = block.shape[1]
        uniform = torch.full((tokens,), 1 / tokens, dtype=torch.float64)
        each.append(add_rows([block], discard_ratios, [uniform] * len(readouts)))
    return torch.stack(each).mean(dim=0)


def _products(rows: Tensor, block: FusedBlock, discard_ratios: Sequence[float]) -> Tensor:
    """rows @ fused of each fusion with each ratio: (fusions, ratios, batch, rows, tokens)."""
    check_one_size(rows, block)
    products = torch.zeros_like(rows)
    for fusion, ratio, queries, kept in kept_rows(block, discard_ratios):
        products[fusion, ratio].baddbmm_(rows[fusion, ratio, :, :, queries], kept)
    return products
