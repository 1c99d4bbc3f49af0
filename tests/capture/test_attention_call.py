"""One attention call against the kernel that it was given to: probabilities, gradient, sign."""

import math

import pytest
import torch
from helpers import small_vit
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from rollout.capture.attention_call import AttentionCall, one_head
from rollout.capture.forward_pass import record_attention

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 4, 6, 5, 3
DOWN, ALONE = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(), torch.tensor([1, 3])
NOBODY = torch.ones(BATCH, 1, QUERIES, KEYS, dtype=torch.bool)
NOBODY[1, 0, ALONE] = False  # two queries of one image may look nowhere

OPTIONS = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "hidden keys": {"mask": DOWN},
    "nothing to look at": {"mask": NOBODY},
    "nothing, added": {"mask": torch.zeros(NOBODY.shape).masked_fill(~NOBODY, -math.inf)},
    "a bias per head": {"mask": torch.randn(1, HEADS, QUERIES, KEYS)},
}


def made(key_heads: int = HEADS, **options) -> AttentionCall:
    """A call whose values are all different; `options` of the call."""
    query = torch.randn(BATCH, HEADS, QUERIES, WIDTH)
    key, value = (torch.randn(BATCH, key_heads, KEYS, WIDTH) for _ in "kv")
    return AttentionCall("attn", value, query, key, **options)


def by_the_kernel(call: AttentionCall, value: Tensor) -> Tensor:
    options = {"is_causal": call.is_causal, "scale": call.scale, "enable_gqa": True}
    return scaled_dot_product_attention(call.query, call.key, value, call.mask, **options)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_kernel_multiplies_values_with_this_attention(name, key_heads):
    """Values that are unit vectors show the probabilities themselves."""
    call = made(key_heads, **OPTIONS[name])
    units = torch.eye(KEYS).expand(BATCH, key_heads, KEYS, KEYS)
    assert call.shape == (BATCH, HEADS, QUERIES, KEYS)
    assert_close(call.attention(), by_the_kernel(call, units))
    assert_close(call.attention(slice(1, 3)), by_the_kernel(call, units)[:, 1:3])


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_the_gradient_is_that_of_the_product_with_the_values(key_heads):
    call, received = made(key_heads), torch.randn(BATCH, HEADS, QUERIES, WIDTH)
    attention = call.attention().requires_grad_()
    output = torch.stack(  # head by head: several in a row share their values
        [attention[:, head] @ call.value[:, head // (HEADS // key_heads)] for head in range(HEADS)],
        dim=1,
    )
    assert_close(output, by_the_kernel(call, call.value))
    (expected,) = torch.autograd.grad(output, attention, received)
    assert_close(call.attention_gradient(received), expected)
    assert_close(call.attention_gradient(received, heads=slice(2, 3)), expected[:, 2:3])


def test_half_precision_and_autocast_leave_sums_of_one():
    call = made()
    halves = AttentionCall("attn", *(one.bfloat16() for one in (call.value, call.query, call.key)))
    received = torch.randn(BATCH, HEADS, QUERIES, WIDTH)
    expected = [call.attention(), call.attention_gradient(received)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [call.attention(), call.attention_gradient(received)]
        sums = halves.attention().sum(dim=-1)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert_close(sums, torch.ones(BATCH, HEADS, QUERIES))
    doubles = AttentionCall("attn", call.value.double(), call.query.double(), call.key.double())
    assert doubles.attention().dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "signed"),
    [
        ([0.0, 0.0], False),
        ([0.004, 0.0], False),  # what half precision may cost a row
        ([0.02, 0.0], True),  # a row that sums to more
        ([-0.02, 0.0], True),
        ([0.3, -0.3], True),  # a row that sums to 1, with a negative entry in it
    ],
)
def test_attention_is_signed_where_it_is_no_distribution(change, signed):
    probabilities = torch.full((BATCH, HEADS, KEYS, KEYS), 1 / KEYS)
    probabilities[1, 2, 3, :2] += torch.tensor(change)
    call = AttentionCall("attn", torch.randn(BATCH, HEADS, KEYS, 3), probabilities=probabilities)
    assert call.signed == signed
    assert not made().signed


def test_a_block_that_the_score_does_not_use_has_a_gradient_of_zero():
    network, images = small_vit(), torch.randn(2, 3, 32, 48)
    network.blocks[1].attn.register_forward_hook(lambda _, args, output: output.detach())
    found = record_attention(network, images).gradients(2)
    assert found[1].shape == (2, 3, 25, 25) and not found[1].any()
    assert found[0].any() and found[2].any()
    call = made()
    assert_close(call.attention_gradient(None, heads=slice(1, 3)), torch.zeros(2, 2, 6, 5))


def test_an_axis_for_the_heads_is_added_only_where_there_is_none():
    query, key, value = (torch.randn(2, 6, width) for width in (4, 4, 3))
    flat = AttentionCall("attn", value, query, key, mask=torch.zeros(6, 6))
    call = one_head(flat, batch=2)
    assert call.shape == (2, 1, 6, 6) and call.value.shape == (2, 1, 6, 3)
    assert call.mask.shape == (6, 6)
    assert_close(call.attention()[:, 0], (query @ key.mT / 2).softmax(dim=-1))
    assert one_head(flat, batch=3) is flat  # heads and images share that axis
    assert one_head(call, batch=2) is call
