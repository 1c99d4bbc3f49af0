"""What is chained: each block's fused attention, or its evidence for a class, last block first."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from rollout.errors import shown
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.checks import check_tensor
from rollout.maths.fused_block import FusedBlock
from rollout.maths.fusion import BLOCK, fuse_head_groups, select_blocks
from rollout.settings import HeadFusion


def fused_last_first(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
    head_fusions: Sequence[HeadFusion],
) -> Iterator[FusedBlock]:
    """What is chained, block by block, last block first: a matrix for each fusion.

    It is the fused attention, or with gradients the positive part of fused attention x gradient.
    """
    if gradients is None:
        return _blocks_last_first([attentions], lambda attention: attention, head_fusions, _refused)
    return evidence_last_first([attentions, gradients], torch.mul, head_fusions)


Entries = Callable[..., Tensor]  # from some heads of each sequence to what is fused


def evidence_last_first(
    sequences: Sequence[Sequence[Tensor]], entries: Entries, head_fusions: Sequence[HeadFusion]
) -> Iterator[FusedBlock]:
    """The positive part of fused entries, block by block, last block first: a matrix per fusion.

    Args:
        sequences: what the entries are made of, such as attentions and gradients, block by block.
        entries: of some heads, (batch, some heads, some queries, key) of each sequence -> the same
            shape; a query's entries depend on no other query.
    """
    return _blocks_last_first(sequences, entries, head_fusions, _positive_part)


def _blocks_last_first(
    sequences: Sequence[Sequence[Tensor]],
    entries: Entries,
    head_fusions: Sequence[HeadFusion],
    finish: Callable[[Tensor], Tensor],
) -> Iterator[FusedBlock]:
    """Of some queries of a fused matrix, (batch, the queries, key), `finish` makes what counts."""
    for index in reversed(range(len(sequences[0]))):
        groups, (batch, _, query, key) = _groups(sequences, index)

        def rows(queries: slice, groups: Groups = groups) -> list[Tensor]:
            some_heads = (entries(*group) for group in groups(queries))
            return [finish(fused) for fused in fuse_head_groups(some_heads, head_fusions)]

        yield FusedBlock((batch, query, key), len(head_fusions), rows)


Groups = Callable[[slice], Iterable[Sequence[Tensor]]]


def _groups(sequences: Sequence[Sequence[Tensor]], index: int) -> tuple[Groups, Sequence[int]]:
    """How to get some queries of one block of all sequences, (batch, some heads, the queries, key),
    a few heads at a time where all can compute it so; and the block's shape."""
    lazy = [blocks for blocks in sequences if isinstance(blocks, BlockSequence)]
    if len(lazy) == len(sequences):
        return partial(_head_groups, lazy, index), lazy[0].shapes[index]
    tensors = [blocks[index] for blocks in sequences]
    return lambda queries: [[one[:, :, queries] for one in tensors]], tensors[0].shape


def _head_groups(
    sequences: Sequence[BlockSequence], index: int, queries: slice
) -> Iterable[tuple[Tensor, ...]]:
    return zip(*(blocks.head_groups(index, queries) for blocks in sequences), strict=True)


def _positive_part(fused: Tensor) -> Tensor:
    _finite_minimum(fused)  # refuses what is not finite
    return fused.clamp(min=0)


def _refused(fused: Tensor) -> Tensor:
    """Itself, if it is finite and non-negative."""
    _check_non_negative(_finite_minimum(fused))
    return fused


def select_pairs(
    attentions: Sequence[Tensor], gradients: Sequence[Tensor], start_block: int = 0
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """`select_blocks` of both, of which each block's shapes must be the same."""
    if isinstance(gradients, str | bytes) or not isinstance(gradients, Sequence):
        raise TypeError(
            f"gradients must be a list, one tensor for each attention, got {shown(gradients)}"
        )
    blocks = select_blocks(attentions, start_block)
    if len(attentions) != len(gradients):
        raise ValueError(f"got {len(attentions)} attentions but {len(gradients)} gradients")
    of_blocks = gradients[start_block:]
    _check_gradients(blocks, of_blocks)
    return blocks, of_blocks


def _check_gradients(attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Gradients of another shape would be broadcast without a word."""
    if isinstance(attentions, BlockSequence) and isinstance(gradients, BlockSequence):
        pairs = list(zip(attentions.shapes, gradients.shapes, strict=True))
    else:
        for place, gradient in enumerate(gradients):
            check_tensor(f"gradient of block {place}", gradient, BLOCK)
        pairs = [(a.shape, g.shape) for a, g in zip(attentions, gradients, strict=True)]
    for place, (attention, found) in enumerate(pairs):
        if attention != found:
            raise ValueError(
                f"gradients must have the shapes of the attentions; block {place} has "
                f"{tuple(found)} for {tuple(attention)}"
            )


def _finite_minimum(fused: Tensor) -> float:
    low, high = map(float, fused.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            "attention is NaN or infinite, or its gradient is; check the weights and the images' "
            "values, or use float32 instead of half precision"
        )
    return low


def _check_non_negative(lowest: float) -> None:
    if lowest < 0:
        raise ValueError(
            f"attention must be non-negative to be rolled out, got {lowest:.4g}: heads "
            "are mixed after the softmax or subtracted from one another; pass the record's "
            "`distributions` instead of its `attentions`"
        )
