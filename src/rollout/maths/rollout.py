"""Attention rollout: multiply the blocks' attention, residual included (Abnar & Zuidema, 2020).

Gradient rollout differs in one place: what enters a block's matrix is attention times the gradient
of the target class, negatives set to 0 (vit-explain, 2020). Everything after that is shared.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rollout.maths.evidence import fused_last_first, select_pairs
from rollout.maths.fused_block import FusedBlock
from rollout.maths.fusion import (
    check_readout,
    full_precision,
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
