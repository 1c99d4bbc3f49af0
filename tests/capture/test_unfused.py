"""What the published code saw, and what it would have laid out wrongly without a word."""

import pytest
import torch
from helpers import left_as_it_was, small_vit
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.capture.unfused import record_unfused, score_gradients
from rollout.errors import UnsupportedNetworkError
from rollout.maths.legacy import through_softmax

SQUARE = {"img_size": (32, 32)}
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_the_modules_return_the_attention_that_is_recorded():
    network, images = small_vit(**SQUARE), IMAGES[..., :32].clone().requires_grad_()
    with left_as_it_was(network):
        record, outputs = record_unfused(network, images, "attn_drop")
    fused = record_attention(network, images.detach())
    assert len(outputs) == 3
    for ours, theirs in zip(outputs, fused.attentions, strict=True):
        assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-6)
    found = score_gradients(record, 2, outputs)
    for block, gradient in enumerate(found):
        expected = through_softmax(fused.attentions[block], fused.gradients(2)[block])
        assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("options", "layer", "fault"),
    [
        ({}, "attn_drop", r"a square patch grid, not 25 tokens, grid \(4, 6\)"),
        # As many tokens as a square of 4 x 4 and a class token.
        (
            {"img_size": (32, 24), "reg_tokens": 4},
            "attn_drop",
            r"a square patch grid, not 17 tokens, grid \(4, 3\)",
        ),
        (SQUARE | {"reg_tokens": 1}, "attn_drop", r"one class token .*, not 18 tokens"),
        (
            SQUARE | {"class_token": False, "global_pool": "avg"},
            "attn_drop",
            r"one class token .*, not 16 tokens",
        ),
        (SQUARE, "attention", r"modules that return attention; of 'attention' this network has"),
        (SQUARE, "proj", r"modules that return attention; of 'proj' this network has none"),
    ],
)
def test_what_the_published_code_cannot_lay_out_is_refused(options, layer, fault):
    network = small_vit(**options)
    height, width = network.patch_embed.img_size
    images = IMAGES[:, :, :height, :width]
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=fault):
        record_unfused(network, images, layer)
