"""Attention rollout: multiply the blocks' attention, residual included (Abnar & Zuidema, 2020).

Gradient rollout differs in one place: what enters a block's matrix is attention times the gradient
of the target class, negatives set to 0 (vit-explain, 2020). Everything after that is shared.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from rollout.errors import shown
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.checks import check_tensor
from rollout.maths.fused_block import FusedBlock
from rollout.maths.fusion import (
    BLOCK,
    check_readout,
    full_precision,
    fuse_head_groups,
    kept_rows,
    select_blocks,
)
from rollout.settings import HeadFusion


def attention_rollout(
    attentions: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
) -> Tensor:
    """Where each output token's content comes from, through all blocks (Abnar & Zuidema, eq. 1).

    Args:
        attentions: one (batch, heads, query, key) tensor per block, first block first, all
            non-negative.
        head_fusion: "mean" (the paper), "max" or "min" over the heads.
        discard_ratio: share of each fused matrix's lowest entries set to 0, in [0, 1).
        start_block: the first block that counts; 0 rolls out through the whole network.
        readout: distribution over the output tokens that the classifier reads, (tokens,) or
            (batch, tokens). With it only this mixture of rows is computed, which is much faster.

    Returns:
        (batch, query, key), or (batch, key) with a readout; rows are non-negative and sum to 1.
    """
    blocks = select_blocks(attentions, start_block)
    fused = fused_last_first(blocks, None, [head_fusion])
    return chain(fused, [discard_ratio], [readout])[0, 0]


def gradient_rollout(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
) -> Tensor:
    """Rollout of what speaks for one class: attention times its gradient, negatives masked.

    Args:
        attentions: one (batch, heads, query, key) tensor per block, first block first.
        gradients: d(target logit) / d(attention), in the order and shapes of `attentions`.
        head_fusion, discard_ratio, start_block, readout: as in `attention_rollout`.

    Returns:
        (batch, query, key), or (batch, key) with a readout; rows are non-negative and sum to 1.
    """
    blocks = select_pairs(attentions, gradients, start_block)
    return chain(fused_last_first(*blocks, [head_fusion]), [discard_ratio], [readout])[0, 0]


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


@full_precision
def chain(
    fused_last_first: Iterable[Sequence[Tensor]],
    discard_ratios: Sequence[float],
    readouts: Sequence[Tensor | None],
) -> Tensor:
    """rows @ transition[last] @ ... @ transition[first] of each fusion with each ratio.

    One block is in memory at a time, of large ones only some queries, and a fused matrix is
    partitioned once for all ratios.

    Args:
        fused_last_first: a matrix for each fusion, (batch, query, key), last block first,
            non-negative; as from the function of this name.
        readouts: what to start from, one per fusion, as `readout` in `attention_rollout`.

    Returns:
        (fusions, ratios, batch, key), or (fusions, ratios, batch, query, key) without a readout;
        rows are non-negative and sum to 1.
    """
    rows: Tensor | None = None
    for matrices in fused_last_first:
        block = FusedBlock.of(matrices)
        rows = output_rows(block, discard_ratios, readouts) if rows is None else rows
        rows = _through_block(rows, block, discard_ratios)
    assert rows is not None  # there is a block
    return rows if readouts[0] is None else rows.squeeze(3)


@full_precision
def read_rows(readout: Tensor, matrix: Tensor) -> Tensor:
    """Rows of (batch, query, key) by a readout of (tokens,) or (batch, tokens) -> (batch, key)."""
    weights = _summing_to_one(readout, matrix).expand(len(matrix), -1)
    return torch.einsum("bq,bqk->bk", weights, matrix)


def output_rows(
    block: FusedBlock, discard_ratios: Sequence[float], readouts: Sequence[Tensor | None]
) -> Tensor:
    """What to start from above the last block, (fusions, ratios, batch, rows, tokens).

    The rows are all tokens, or one: the readout.
    """
    start = torch.stack([_output_rows_of_one(block, readout) for readout in readouts])
    return start.unsqueeze(1).expand(-1, len(discard_ratios), -1, -1, -1)


def _output_rows_of_one(block: FusedBlock, readout: Tensor | None) -> Tensor:
    """Every token, (batch, query, key), or the readout, (batch, 1, key)."""
    batch, query, key = block.shape
    if query != key:
        raise ValueError(f"attention must have as many queries as keys, got {query} and {key}")
    _, (like, *_) = next(iter(block.pieces()))
    if readout is None:
        return torch.eye(key, device=like.device, dtype=like.dtype).expand(batch, key, key)
    check_readout(readout, batch, key)
    return _summing_to_one(readout, like).expand(batch, key).unsqueeze(1)


def _summing_to_one(readout: Tensor, like: Tensor) -> Tensor:
    """In the precision of another tensor; half precision leaves a sum of 0.996 or 1.004."""
    weights = readout.to(like)
    coarse = torch.finfo(readout.dtype).eps > 1e-4 if readout.is_floating_point() else False
    return weights / weights.sum(dim=-1, keepdim=True) if coarse else weights


def _through_block(rows: Tensor, block: FusedBlock, discard_ratios: Sequence[float]) -> Tensor:
    """rows @ transition of each fusion with each ratio, without building the normalised matrices.

    Args:
        rows: (fusions, ratios, batch, rows, tokens) above this block.
    """
    check_one_size(rows, block)
    below = torch.zeros_like(rows)
    for fusion, ratio, queries, kept in kept_rows(block, discard_ratios):
        weighted = rows[fusion, ratio, :, :, queries] / (kept.sum(dim=-1) + 1).unsqueeze(1)
        below[fusion, ratio].baddbmm_(weighted, kept)
        below[fusion, ratio, :, :, queries] += weighted  # the identity
    return below


def check_one_size(rows: Tensor, block: FusedBlock) -> None:
    if block.shape[-1] != rows.shape[-1]:
        raise ValueError(
            f"blocks differ in size: {rows.shape[-1]} tokens above, {block.shape[-1]} below; "
            "rollout needs one set of tokens through all blocks"
        )
