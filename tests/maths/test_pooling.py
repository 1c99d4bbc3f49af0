"""What is read where that depends on the image: against the pooling of timm, and by hand."""

import pytest
import torch
from timm.layers import global_pool_nlc
from torch.nn.functional import one_hot
from torch.testing import assert_close

from rollout.errors import UnsupportedNetworkError
from rollout.maths.pooling import attention_readout, maximum_readout
from rollout.maths.token_layout import TokenLayout

CHANNELS = 7


@pytest.mark.parametrize("pooling", ["max", "avgmax"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_a_token_is_read_by_as_much_as_it_moves_what_is_pooled(pooling, prefix):
    tokens = torch.randn(2, prefix + 6, CHANNELS, requires_grad=True)
    pooled = global_pool_nlc(tokens, pooling, num_prefix_tokens=prefix)
    moved = torch.autograd.grad(pooled.sum(), tokens)[0].sum(dim=-1) / CHANNELS
    winner = tokens[:, prefix:].argmax(dim=1)
    maxima = one_hot(winner, 6).sum(dim=1) / CHANNELS  # (batch, patches)
    assert_close(maximum_readout(TokenLayout((2, 3), prefix, pooling), maxima), moved)


@pytest.mark.parametrize("prefix", [0, 1])
def test_self_attention_that_pools_is_read_at_its_class_token_or_averaged(prefix):
    attention = torch.randn(2, 3, 6 + prefix, 6 + prefix).softmax(dim=-1)
    found = attention_readout(TokenLayout((2, 3), prefix, "map"), [attention], None)
    fused = attention.mean(dim=1)
    assert_close(found, fused[:, 0] if prefix else fused.mean(dim=1))


@pytest.mark.parametrize("queries", [1, 4])
def test_of_several_pooled_vectors_the_first_is_read(queries):
    attention = torch.randn(2, 3, queries, 6).softmax(dim=-1)
    found = attention_readout(TokenLayout((2, 3), 1, "map"), [attention], None, "max")
    expected = attention.amax(dim=1)[:, 0]
    expected = expected / expected.sum(dim=1, keepdim=True)
    assert_close(found, torch.cat([torch.zeros(2, 1), expected], dim=1))


def test_a_single_token_is_its_own_pool():
    found = attention_readout(TokenLayout((1, 1), 0, "map"), [torch.ones(2, 3, 1, 1)], None)
    assert_close(found, torch.ones(2, 1))


def test_poolers_one_above_the_other_are_multiplied_last_first():
    lower, upper = (torch.randn(2, 3, *size).softmax(dim=-1) for size in [(4, 6), (1, 4)])
    layout = TokenLayout((2, 3), 0, "map")
    expected = (upper.mean(dim=1) @ lower.mean(dim=1))[:, 0]
    assert_close(attention_readout(layout, [lower, upper], None), expected)
    with pytest.raises(UnsupportedNetworkError, match="2 attention layers pool the tokens"):
        attention_readout(layout, [upper, lower], None)


@pytest.mark.parametrize("pooling", ["map", "class_attention"])
def test_of_an_image_for_which_nothing_speaks_the_attention_is_read(pooling):
    layout, keys = TokenLayout((2, 3), 0, pooling), 7 if pooling == "class_attention" else 6
    attention = torch.randn(2, 3, 1, keys).softmax(dim=-1)
    gradient = torch.stack([torch.rand(3, 1, keys), -torch.rand(3, 1, keys)])
    found = attention_readout(layout, [attention], [gradient])
    product = (attention * gradient).mean(dim=1)[0, 0, -6:]
    assert_close(found[0], product / product.sum())
    assert_close(found[1], attention_readout(layout, [attention], None)[1])


def test_class_attention_follows_the_class_token_through_its_blocks():
    """A walk from the last block down: half stays on the class token, half follows attention."""
    first, second = (torch.randn(2, 3, 1, 5).softmax(dim=-1) for _ in "ab")
    stays = (second.mean(dim=1)[:, 0, :1] + 1) / 2
    walk = second.mean(dim=1)[:, 0, 1:] / 2 + stays * first.mean(dim=1)[:, 0, 1:] / 2
    layout = TokenLayout((2, 2), 0, "class_attention")
    found = attention_readout(layout, [first, second], None)
    assert_close(found, walk / walk.sum(dim=1, keepdim=True))
