"""Attention rollout: multiply the blocks' attention, residual included (Abnar & Zuidema, 2020).

Gradient rollout differs in one place: what enters a block's matrix is attention times the gradient
of the target class, negatives set to 0 (vit-explain, 2020). Everything after that is shared.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from rollout.errors import shown
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.checks import check_tensor
from rollout.maths.fusion import (
    BLOCK,
    check_readout,
    discard_each,
    full_precision,
    fuse_head_groups,
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
) -> Iterator[list[Tensor]]:
    """What is chained, block by block, last block first: (batch, query, key) for each fusion.

    It is the fused attention, or with gradients the positive part of fused attention x gradient.
    """
    if gradients is not None:
        yield from evidence_last_first([attentions, gradients], torch.mul, head_fusions)
        return
    for groups in _blocks_last_first(attentions):
        fused = fuse_head_groups((attention for (attention,) in groups), head_fusions)
        _check_non_negative(min(map(_finite_minimum, fused)))
        yield fused


Entries = Callable[..., Tensor]  # from some heads of each sequence to what is fused


def evidence_last_first(
    sequences: Sequence[Sequence[Tensor]], entries: Entries, head_fusions: Sequence[HeadFusion]
) -> Iterator[list[Tensor]]:
    """The positive part of fused entries, block by block, last block first: (batch, query, key) for
    each fusion.

    Args:
        sequences: what the entries are made of, such as attentions and gradients, block by block.
        entries: of some heads, (batch, some heads, query, key) of each sequence -> the same shape.
    """
    for groups in _blocks_last_first(*sequences):
        fused = fuse_head_groups((entries(*group) for group in groups), head_fusions)
        for matrix in fused:
            _finite_minimum(matrix)  # refuses what is not finite
        yield [matrix.clamp(min=0) for matrix in fused]


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


def _blocks_last_first(*sequences: Sequence[Tensor]) -> Iterator[Iterable[tuple[Tensor, ...]]]:
    """Block by block what the sequences hold, a few heads at a time where all can compute it so."""
    lazy = [blocks for blocks in sequences if isinstance(blocks, BlockSequence)]
    for index in reversed(range(len(sequences[0]))):
        if len(lazy) == len(sequences):
            yield zip(*(blocks.head_groups(index) for blocks in lazy), strict=True)
        else:
            yield [tuple(blocks[index] for blocks in sequences)]


@full_precision
def chain(
    fused_last_first: Iterable[Sequence[Tensor]],
    discard_ratios: Sequence[float],
    readouts: Sequence[Tensor | None],
) -> Tensor:
    """rows @ transition[last] @ ... @ transition[first] of each fusion with each ratio.

    One block is in memory at a time, and a fused matrix is partitioned once for all ratios.

    Args:
        fused_last_first: (batch, query, key) for each fusion, last block first.
        readouts: what to start from, one per fusion, as `readout` in `attention_rollout`.

    Returns:
        (fusions, ratios, batch, key), or (fusions, ratios, batch, query, key) without a readout;
        rows are non-negative and sum to 1.
    """
    rows: list[list[Tensor | None]] = [[None for _ in discard_ratios] for _ in readouts]
    for matrices in fused_last_first:
        for matrix, readout, of_fusion in zip(matrices, readouts, rows, strict=True):
            for place, kept in enumerate(discard_each(matrix, discard_ratios)):
                of_fusion[place] = _through_block(of_fusion[place], kept, readout)
    finished = torch.stack(
        [torch.stack([row for row in of_fusion if row is not None]) for of_fusion in rows]
    )
    return finished if readouts[0] is None else finished.squeeze(3)


@full_precision
def read_rows(readout: Tensor, matrix: Tensor) -> Tensor:
    """Rows of (batch, query, key) by a readout of (tokens,) or (batch, tokens) -> (batch, key)."""
    weights = _summing_to_one(readout, matrix).expand(len(matrix), -1)
    return torch.einsum("bq,bqk->bk", weights, matrix)


def _output_rows(fused: Tensor, readout: Tensor | None) -> Tensor:
    """What to start from: every token, (batch, query, key), or the readout, (batch, 1, key)."""
    batch, query, key = fused.shape
    if query != key:
        raise ValueError(f"attention must have as many queries as keys, got {query} and {key}")
    if readout is None:
        return torch.eye(key, device=fused.device, dtype=fused.dtype).expand(batch, key, key)
    check_readout(readout, batch, key)
    return _summing_to_one(readout, fused).expand(batch, key).unsqueeze(1)


def _summing_to_one(readout: Tensor, like: Tensor) -> Tensor:
    """In the precision of another tensor; half precision leaves a sum of 0.996 or 1.004."""
    weights = readout.to(like)
    coarse = torch.finfo(readout.dtype).eps > 1e-4 if readout.is_floating_point() else False
    return weights / weights.sum(dim=-1, keepdim=True) if coarse else weights


def _through_block(rows: Tensor | None, fused: Tensor, readout: Tensor | None) -> Tensor:
    """rows @ transition(fused) without building the normalised matrix.

    Args:
        rows: (batch, rows, tokens) above this block; None above the last, where rollout starts.
        fused: (batch, query, key).
        readout: what to start from, as in `attention_rollout`.
    """
    if rows is None:
        rows = _output_rows(fused, readout)
    elif fused.shape[-1] != rows.shape[-1]:
        raise ValueError(
            f"blocks differ in size: {rows.shape[-1]} tokens above, {fused.shape[-1]} below; "
            "rollout needs one set of tokens through all blocks"
        )
    weighted = rows / (fused.sum(dim=-1) + 1).unsqueeze(1)  # (batch, rows, tokens)
    return torch.baddbmm(weighted, weighted, fused)
