"""What the classifier reads of each token where that depends on the image: pooling by attention."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from rollout.errors import UnsupportedNetworkError
from rollout.maths.fusion import full_precision, fuse_heads
from rollout.maths.token_layout import TokenLayout
from rollout.settings import HeadFusion


@full_precision
def attention_readout(
    layout: TokenLayout,
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
    head_fusion: HeadFusion = "mean",
) -> Tensor:
    """The distribution over the output tokens by which attention layers pool them.

    Args:
        attentions: of the pooling layers, first to last, (batch, heads, query, key) each; one query
            for each pooled vector, and the patches, all tokens, or a class token and the patches as
            keys.
        gradients: d(score) / d(attention) in the same shapes: what speaks for the target is read,
            as in gradient rollout. None reads what is attended to.

    Returns:
        (batch, tokens), rows sum to 1. Where nothing speaks for the target, what is attended to.
    """
    attended = _pool(layout, [fuse_heads(one, head_fusion) for one in attentions])
    attended = attended / attended.sum(dim=1, keepdim=True)
    if gradients is None:
        return attended
    pairs = zip(attentions, gradients, strict=True)
    products = [fuse_heads(one * gradient, head_fusion).clamp(min=0) for one, gradient in pairs]
    speaking = _pool(layout, products)
    total = speaking.sum(dim=1, keepdim=True)
    return torch.where(total > 0, speaking / total, attended)


def maximum_readout(layout: TokenLayout, maxima: Tensor) -> Tensor:
    """The share of channels in which each token was the maximum; beside the average for avgmax.

    Args:
        maxima: (batch, tokens), or (batch, patches).
    """
    share = _with_prefix(layout, maxima)
    return (share + layout.readout.to(share)) / 2 if layout.pooling == "avgmax" else share


def _pool(layout: TokenLayout, fused: Sequence[Tensor]) -> Tensor:
    """(batch, query, key) per layer -> weights of the output tokens, (batch, tokens)."""
    if layout.pooling == "class_attention":
        return _through_class_blocks(fused)
    *lower, weights = fused
    queries = weights.shape[1]
    if queries == layout.num_tokens:  # self-attention, of which one row or the mean is read
        rows = weights[:, 0] if layout.num_prefix_tokens else weights.mean(dim=1)
    else:
        rows = weights[:, 0]
    for below in reversed(lower):
        if below.shape[1] != rows.shape[1]:
            raise UnsupportedNetworkError(
                f"{len(fused)} attention layers pool the tokens, of which one does not read the "
                "other; there is no one distribution over the tokens that the answer reads"
            )
        rows = torch.einsum("bq,bqk->bk", rows, below)
    return _with_prefix(layout, rows)


def _through_class_blocks(fused: Sequence[Tensor]) -> Tensor:
    """A class token looks at itself and the patches in block after block; patches stay as they are.

    Args:
        fused: (batch, 1, 1 + patches) per block, the class token first.
    """
    batch, _, keys = fused[0].shape
    on_class, on_patches = fused[0].new_ones(batch, 1), fused[0].new_zeros(batch, keys - 1)
    for block in reversed(fused):
        looked_at = block[:, 0]  # (batch, 1 + patches)
        total = looked_at.sum(dim=1, keepdim=True) + 1  # the residual is the 1
        on_patches = on_patches + on_class * looked_at[:, 1:] / total
        on_class = on_class * (looked_at[:, :1] + 1) / total
    return on_patches


def _with_prefix(layout: TokenLayout, weights: Tensor) -> Tensor:
    """Zeros for the prefix tokens where the keys were the patches alone."""
    missing = layout.num_tokens - weights.shape[-1]
    return pad(weights, (missing, 0))
