"""From gradient rollout as vit-explain published it to the corrected one, a repair at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rollout.published import published_gradient_rollout, through_softmax
from rollout.rollout import gradient_rollout


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
        name: published_gradient_rollout(*blocks, discard_ratio) for name, blocks in steps.items()
    }
    rollouts["rows sum to one"] = gradient_rollout(
        attentions, gradients, discard_ratio=discard_ratio
    )
    return {name: _read(readout, rollout.cpu()) for name, rollout in rollouts.items()}


def _read(readout: Tensor, rollout: Tensor) -> Tensor:
    """(tokens,) or (batch, tokens), and (batch, query, key) -> (batch, key)."""
    return torch.einsum("bq,bqk->bk", readout.to(rollout).expand(len(rollout), -1), rollout)
