"""The published arithmetic, faults included, written out once more in numpy, image by image."""

import numpy as np
import pytest
import torch
from helpers import BAD_RATIOS, random_attention
from torch.testing import assert_close

from rollout.maths.legacy import (
    check_legacy_fusion,
    legacy_attention_rollout,
    legacy_gradient_rollout,
    through_softmax,
)

BLOCKS, TOKENS = 3, 6
REDUCE = {"mean": np.mean, "max": np.max, "min": np.min}


def published(fused: list[np.ndarray], ratio: float, spare_first: bool) -> np.ndarray:
    result = np.eye(TOKENS)
    for matrix in fused:
        flat = matrix.flatten()
        lowest = np.argsort(flat)[: int(flat.size * ratio)]
        flat[lowest[lowest != 0] if spare_first else lowest] = 0
        halves = (flat.reshape(TOKENS, TOKENS) + np.eye(TOKENS)) / 2
        result = halves / halves.sum(axis=-1)[None, :] @ result  # columns, by the sums of rows
    return result


def parts() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    attentions = [random_attention(2, 3, TOKENS, peak=2).double() for _ in range(BLOCKS)]
    return attentions, [torch.randn(2, 3, TOKENS, TOKENS).double() for _ in range(BLOCKS)]


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("head_fusion", REDUCE)
def test_attention_rollout_as_it_was_published(head_fusion, ratio):
    attentions, _ = parts()
    attentions[1][:, :, 0, 0] = 0  # among the lowest, and spared
    found = legacy_attention_rollout(attentions, head_fusion, ratio)
    for image in range(2):
        fused = [REDUCE[head_fusion](block[image].numpy(), axis=0) for block in attentions]
        assert_close(found[image].numpy(), published(fused, ratio, spare_first=True))


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.9])
def test_gradient_rollout_as_it_was_published(ratio):
    """The last block's gradient meets the first block's attention; (0, 0) is not spared."""
    attentions, gradients = parts()
    attentions[1][:, :, 0, 0] = 1e-6
    gradients[1][:, :, 0, 0] = 1  # low, but not as low as those that are 0
    found = legacy_gradient_rollout(attentions, gradients, ratio)
    for image in range(2):
        pairs = zip(attentions, gradients[::-1], strict=True)
        fused = [np.mean((a[image] * g[image]).numpy(), axis=0).clip(min=0) for a, g in pairs]
        assert_close(found[image].numpy(), published(fused, ratio, spare_first=False))


def test_the_way_through_the_softmax_is_its_derivative():
    scores = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    attention, gradient = scores.softmax(dim=-1), torch.randn(2, 3, 5, 5).double()
    (expected,) = torch.autograd.grad(attention, scores, gradient)
    assert_close(through_softmax(attention.detach(), gradient), expected)


def test_half_precision_is_multiplied_in_full():
    attentions = [random_attention(2, 3, TOKENS).half() for _ in range(BLOCKS)]
    found = legacy_attention_rollout(attentions, "mean", 0.5)
    assert found.dtype == torch.float32


def test_what_was_never_published_is_refused():
    check_legacy_fusion("mean")
    for fusion in ("max", "min"):
        with pytest.raises(ValueError, match=f"only head_fusion='mean', got '{fusion}'"):
            check_legacy_fusion(fusion)
    for ratio in BAD_RATIOS:
        with pytest.raises(ValueError, match="discard_ratio must be a number"):
            legacy_attention_rollout(parts()[0], "mean", ratio)
