"""Rollout for several head fusions and discard ratios at once.

A block's attention is computed once and fused in every way; a fused matrix is partitioned once for
all ratios. The maps are those of `attention_rollout` and `gradient_rollout`, setting by setting.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rollout.fusion import (
    HEAD_FUSIONS,
    HeadFusion,
    check_discard_ratio,
    check_head_fusion,
    discard_below,
    select_blocks,
)
from rollout.rollout import check_as_many, entries_last_first, through_block


def swept_rollout(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
    *,
    head_fusions: Sequence[HeadFusion],
    discard_ratios: Sequence[float],
    readouts: Sequence[Tensor],
) -> Tensor:
    """Attention rollout, or with gradients gradient rollout, of each fusion with each ratio.

    Args:
        attentions, gradients: as in `gradient_rollout`; None leaves the gradients out.
        readouts: one per fusion, as `readout` in `gradient_rollout`.

    Returns:
        (fusions, ratios, batch, key); rows are non-negative and sum to 1.
    """
    for head_fusion in head_fusions:
        check_head_fusion(head_fusion)
    for discard_ratio in discard_ratios:
        check_discard_ratio(discard_ratio)
    if gradients is not None:
        check_as_many(attentions, gradients)
    rows: list[list[Tensor | None]] = [[None for _ in discard_ratios] for _ in head_fusions]
    for groups in entries_last_first(select_blocks(attentions), gradients):
        fused = fuse_each_way(groups, head_fusions)
        if gradients is not None:
            fused = [matrix.clamp(min=0) for matrix in fused]
        for matrix, readout, of_fusion in zip(fused, readouts, rows, strict=True):
            for place, kept in enumerate(discard_each(matrix, discard_ratios)):
                of_fusion[place] = through_block(of_fusion[place], kept, readout)
    finished = [torch.cat([row for row in of_fusion if row is not None], 1) for of_fusion in rows]
    return torch.stack(finished).transpose(1, 2)  # from (fusions, batch, ratios, key)


def fuse_each_way(groups: Iterable[Tensor], head_fusions: Sequence[HeadFusion]) -> list[Tensor]:
    """`fuse_head_groups` for each fusion, from one look at the groups."""
    fused: list[Tensor] = []
    heads = 0
    for group in groups:
        parts = [HEAD_FUSIONS[name][0](group, dim=1) for name in head_fusions]
        if heads == 0:
            fused = parts
        else:
            both = zip(head_fusions, fused, parts, strict=True)
            fused = [HEAD_FUSIONS[name][1](above, part) for name, above, part in both]
        heads += group.shape[1]
    named = zip(head_fusions, fused, strict=True)
    return [matrix / heads if name == "mean" else matrix for name, matrix in named]


def discard_each(fused: Tensor, discard_ratios: Sequence[float]) -> Iterator[Tensor]:
    """`discard_lowest` for each ratio, at the cost of one partition: (batch, query, key) each."""
    entries = fused.flatten(1)  # (batch, query, key) -> (batch, query * key)
    counts = [int(ratio * entries.shape[1]) for ratio in discard_ratios]
    for count, smallest_kept in zip(counts, _order_statistics(entries, counts), strict=True):
        yield discard_below(fused, smallest_kept) if count else fused


def _order_statistics(entries: Tensor, indices: Sequence[int]) -> Tensor:
    """The entries of each row at `indices` of its sorted order: (rows, entries) -> (indices, rows).

    One partition for nine indices takes two thirds of the time of a sort, and a third of that of
    nine partitions (1370 x 1370 entries).
    """
    if entries.device.type == "cpu" and entries.dtype in (torch.float32, torch.float64):
        wanted = sorted(set(indices))
        selected = [np.partition(row, wanted)[indices] for row in entries.detach().numpy()]
        return torch.from_numpy(np.stack(selected, axis=1))
    return entries.sort(dim=1).values[:, list(indices)].T
