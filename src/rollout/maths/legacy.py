"""The arithmetic of vit-explain as it was published, faults included, to reproduce its pictures.

Two of them are deliberate here: columns, not rows, are normalised, and gradients are those of the
softmax's input, each block's paired with the attention of the block opposite in the network.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rollout.maths.fusion import full_precision, fuse_heads
from rollout.maths.rollout import gradient_rollout, read_rows
from rollout.settings import HeadFusion, check_discard_ratio


def legacy_attention_rollout(
    attentions: Sequence[Tensor], head_fusion: HeadFusion, discard_ratio: float
) -> Tensor:
    """The published attention rollout of each image: (batch, query, key)."""
    fused = [fuse_heads(attention.detach().cpu(), head_fusion) for attention in attentions]
    return _image_by_image(fused, discard_ratio, spare_first=True)


def legacy_gradient_rollout(
    attentions: Sequence[Tensor], score_gradients: Sequence[Tensor], discard_ratio: float
) -> Tensor:
    """The published gradient rollout of each image: (batch, query, key).

    Args:
        score_gradients: of the softmax's input, first block first. The published backward hooks
            collect the last block first, its forward hooks the first block first.
    """
    pairs = zip(attentions, reversed(score_gradients), strict=True)
    fused = [fuse_heads(block.detach().cpu() * gradient.cpu()) for block, gradient in pairs]
    positive = [block.masked_fill(block < 0, 0) for block in fused]
    return _image_by_image(positive, discard_ratio, spare_first=False)


def check_legacy_fusion(head_fusion: str) -> None:
    """There is no published picture that another fusion would reproduce."""
    if head_fusion != "mean":
        raise ValueError(
            "the published gradient rollout knows only head_fusion='mean', got "
            f"{head_fusion!r} with legacy=True; use legacy=False"
        )


def through_softmax(attention: Tensor, gradient: Tensor) -> Tensor:
    """From d(logit) / d(probabilities) to d(logit) / d(input of the softmax)."""
    weighted = attention * gradient
    return weighted - attention * weighted.sum(dim=-1, keepdim=True)


def _image_by_image(fused: Sequence[Tensor], discard_ratio: float, *, spare_first: bool) -> Tensor:
    """The published code multiplies one image's blocks: (batch, query, key) per block and out."""
    images = range(len(fused[0]))
    return torch.cat(
        [
            _multiply([block[[image]] for block in fused], discard_ratio, spare_first)
            for image in images
        ]
    )


@full_precision
def _multiply(fused_blocks: Iterable[Tensor], discard_ratio: float, spare_first: bool) -> Tensor:
    rollout: Tensor | None = None
    for fused in fused_blocks:
        kept = _discard(fused, discard_ratio, spare_first)
        dtype = torch.promote_types(kept.dtype, torch.get_default_dtype())
        identity = torch.eye(kept.shape[-1], dtype=dtype)
        halves = (kept + identity) / 2
        # Without keepdim: each column is divided by the sum of the row of its number.
        transition = halves / halves.sum(dim=-1)
        rollout = transition @ (identity if rollout is None else rollout)
    assert rollout is not None  # a network has a block
    return rollout


def _discard(fused: Tensor, discard_ratio: float, spare_first: bool) -> Tensor:
    """Unlike `discard_lowest`, topk chooses among equal entries, so that just so many become 0."""
    check_discard_ratio(discard_ratio)
    entries = fused.flatten(1)  # (1, query, key) -> (1, query * key)
    lowest = entries.topk(int(entries.shape[1] * discard_ratio), largest=False).indices[0]
    return entries.index_fill(1, lowest[lowest != 0] if spare_first else lowest, 0).view_as(fused)


def repair_steps(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    earlier: Sequence[Tensor],
    *,
    readout: Tensor,
    discard_ratio: float = 0.9,
) -> dict[str, Tensor]:
    """What each fault of the published code does, the mean over the heads throughout.

    Args:
        attentions, gradients: of the target, as in `gradient_rollout`.
        earlier: the gradients of a target that the same instance was asked for before, on the same
            image; the published code keeps them.
        readout: the rows to show, (tokens,) or (batch, tokens).

    Returns:
        Name of the step to the readout's rows, (batch, key). The second is what `legacy=True`
        computes, the last what `gradient_rollout` computes.
    """
    attentions, gradients, earlier = list(attentions), list(gradients), list(earlier)
    scores, of_earlier = (
        [through_softmax(*pair) for pair in zip(attentions, each, strict=True)]
        for each in (gradients, earlier)
    )
    steps = {
        # Hooks append the last block's gradient first, and the code reverses nothing.
        "published, second call": (attentions + attentions, scores + of_earlier),
        "published, first call": (attentions, scores),
        "each block's own gradient": (attentions, scores[::-1]),
        "gradient of the attention": (attentions, gradients[::-1]),
    }
    rollouts = {
        name: legacy_gradient_rollout(*blocks, discard_ratio) for name, blocks in steps.items()
    }
    rollouts["rows sum to one"] = gradient_rollout(
        attentions, gradients, discard_ratio=discard_ratio
    )
    return {name: read_rows(readout, rollout.cpu()) for name, rollout in rollouts.items()}
