"""Relevance of tokens for one score, from attention and its gradient: the methods beside rollout.

They differ from gradient rollout in two places: in what the heads of a block are asked for before
they are fused (the lowest entries are then discarded as in rollout), and in the walk by which the
blocks are put together.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from rollout.maths.evidence import Entries, evidence_last_first, select_pairs
from rollout.maths.fusion import check_readout, select_blocks
from rollout.maths.walks import Walk, accumulate, add_rows, mean_columns
from rollout.settings import HeadFusion


def positive_product(attention: Tensor, gradient: Tensor) -> Tensor:
    """What speaks for the score in each head; in gradient rollout heads cancel out first."""
    return (attention * gradient).clamp(min=0)


def positive_gradient(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)


def weighted_attention(
    attention: Tensor, gradient: Tensor, *, num_prefix_tokens: int = 1
) -> Tensor:
    """Each query's attention times its head's weight: the mean gradient over the patches."""
    return attention * gradient[..., num_prefix_tokens:].mean(dim=-1, keepdim=True)


def gated_gradient(scores: Tensor, gradient: Tensor) -> Tensor:
    return scores.sigmoid() * gradient.clamp(min=0)


def generic_relevance(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
) -> Tensor:
    """R <- R + fused R, from R = I (Chefer, Gur & Wolf, ICCV 2021, eq. 5 and 6).

    Fused is the mean over the heads of (attention x gradient)+. Nothing is normalised, so what a
    block adds is not weighed against what passes it by.

    Args:
        attentions: one (batch, heads, query, key) tensor per block, first block first.
        gradients: d(score) / d(attention), in the order and shapes of `attentions`.
        head_fusion: "mean" (the paper), "max" or "min" over the heads.
        discard_ratio: share of each fused matrix's lowest entries set to 0, in [0, 1).
        start_block: the first block that counts.
        readout: distribution over the output tokens that the classifier reads, (tokens,) or
            (batch, tokens).

    Returns:
        (batch, query, key), or (batch, key) with a readout; non-negative. Like the paper's R it
        holds what each token keeps of itself: the readout, where nothing speaks for the score.
    """
    blocks = select_pairs(attentions, gradients, start_block)
    return _relevance(positive_product, accumulate, blocks, head_fusion, discard_ratio, readout)


def first_order(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
) -> Tensor:
    """The sum over blocks of the readout's row of (attention x gradient)+: depth without mixing.

    Where attention x gradient is far below 1, as it mostly is, gradient rollout is to first order
    the readout, plus this, less what leaves each token that is read: the readout times the sum of
    its rows. So the order of the blocks plays no part.

    Args, Returns:
        As `generic_relevance`; 0 where nothing speaks for the score.
    """
    blocks = select_pairs(attentions, gradients, start_block)
    return _relevance(torch.mul, add_rows, blocks, head_fusion, discard_ratio, readout)


def legrad(
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
) -> Tensor:
    """The mean of the gradient's positive part over blocks, heads and queries -> (batch, key).

    LeGrad, Bousselham et al., ICCV 2025, section 3. There each block's gradient is that of its own
    score, of the mean of its own tokens; with `gradients` of the network's answer it is the
    sensitivity of that. Attention itself plays no part, nor does what the classifier reads.

    Args:
        gradients: d(score) / d(attention), one (batch, heads, query, key) per block, first block
            first.
        head_fusion, discard_ratio, start_block: as in `generic_relevance`.
    """
    blocks = [select_blocks(gradients, start_block)]
    return _relevance(positive_gradient, mean_columns, blocks, head_fusion, discard_ratio, None)


def attention_gradcam(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    num_prefix_tokens: int = 1,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    readout: Tensor | None = None,
) -> Tensor:
    """Grad-CAM on the last block's attention, as Chefer, Gur & Wolf compare with it (CVPR 2021).

    A head's weight is its mean gradient over the patches; what is read is the positive part of the
    mean over the heads of weight x attention, for each query by itself.

    Args, Returns:
        As `generic_relevance`; of all blocks only the last one counts.
    """
    entries = partial(weighted_attention, num_prefix_tokens=num_prefix_tokens)
    last = select_pairs(attentions, gradients, len(attentions) - 1)
    return _relevance(entries, add_rows, last, head_fusion, discard_ratio, readout)


def agcam(
    scores: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
) -> Tensor:
    """The sum over blocks of the readout's row of sigmoid(scores) x gradient+, mean over the heads.

    Attention-guided CAM, Leem & Seo, AAAI 2024, eq. 2 and 7; there heads are added up, which is the
    mean times their number.

    Args:
        scores: what the softmax is taken of, q k^T / sqrt(head_dim), one (batch, heads, query, key)
            per block, first block first.
        gradients: d(score) / d(attention after the softmax), in the order and shapes of `scores`.
        head_fusion, discard_ratio, start_block, readout: as in `generic_relevance`.

    Returns:
        As `generic_relevance`; 0 where nothing speaks for the score.
    """
    blocks = select_pairs(scores, gradients, start_block)
    return _relevance(gated_gradient, add_rows, blocks, head_fusion, discard_ratio, readout)


def _relevance(
    entries: Entries,
    walk: Walk,
    blocks: Sequence[Sequence[Tensor]],
    head_fusion: HeadFusion,
    discard_ratio: float,
    readout: Tensor | None,
) -> Tensor:
    batch, _, query, key = blocks[0][0].shape
    if query != key:
        raise ValueError(f"attention must have as many queries as keys, got {query} and {key}")
    if readout is not None:
        check_readout(readout, batch, key)
    fused = evidence_last_first(blocks, entries, [head_fusion])
    return walk(fused, [discard_ratio], [readout])[0, 0]
