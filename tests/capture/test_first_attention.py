"""Tokens or channels: where heads are as wide as there are patches, shapes do not tell which."""

import pytest
import timm
import torch
from helpers import left_as_it_was, redraw, small_vit
from torch.testing import assert_close

from rollout.capture.first_attention import first_attention
from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def set_fused(network: torch.nn.Module, fused: bool) -> None:
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("width", [24, 25, 32])
def test_wide_heads_are_no_reason_to_refuse(width, class_token, fused):
    """24 patches; with the class token 25 tokens."""
    pool = "token" if class_token else "avg"
    network = small_vit(embed_dim=2 * width, num_heads=2, class_token=class_token, global_pool=pool)
    set_fused(network, fused)
    with left_as_it_was(network):
        record = record_attention(network, IMAGES)
    assert record.blocks[0].shape == (2, 2, 24 + class_token, 24 + class_token)
    set_fused(network, not fused)
    other = record_attention(network, IMAGES)
    assert_close(list(record.attentions), list(other.attentions), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("width", [32, 48])
def test_attention_among_channels_is_refused_whatever_the_sizes(width, fused):
    """Cross-covariance attention, 4 x 8 patches: as many channels in a head, or more."""
    network = timm.models.Xcit((64, 128), embed_dim=4 * width, depth=1, num_heads=4, eta=1.0)
    set_fused(redraw(network, std=0.1).eval(), fused)
    message = "cross-covariance attention among channels in 1 block"
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=message):
        record_attention(network, torch.randn(2, 3, 64, 128))


@pytest.mark.parametrize("cell", [(0, 0), (1, 4), (3, 5)])
def test_noise_on_a_cell_of_the_convolution_changes_its_token_alone(cell):
    network = small_vit(reg_tokens=2)
    with left_as_it_was(network):
        plain = first_attention(network, IMAGES)
        shaken = first_attention(network, IMAGES, (plain.convolutions, *cell))
    assert plain.value.shape == (2, 3, 27, 8)
    changed = (shaken.value != plain.value).all(dim=3).all(dim=1)  # (batch, tokens)
    expected = torch.zeros(2, 27, dtype=torch.bool)
    expected[:, 3 + 6 * cell[0] + cell[1]] = True
    assert torch.equal(changed, expected)


def test_a_network_without_attention_is_left_at_its_end():
    found = first_attention(torch.nn.Conv2d(3, 4, 8, 8), IMAGES)
    assert found.value is None and found.convolutions == 1
