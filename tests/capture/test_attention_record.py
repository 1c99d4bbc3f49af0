"""Attention and its gradient come out the same whole and a few heads at a time."""

import pytest
import torch

from rollout import attention_rollout, gradient_rollout
from rollout.capture.attention_call import AttentionCall
from rollout.maths import block_sequence as sequences
from rollout.maths.block_sequence import BlockSequence


def attention_call(key_heads=4, **options):
    query, key, value = (torch.randn(2, heads, 5, 3) for heads in (4, key_heads, key_heads))
    return AttentionCall("attn", value, query, key, **options)


def received_by(call, output_gradient):
    return lambda heads, queries: call.attention_gradient(
        output_gradient, heads=heads, queries=queries
    )


CALLS = {
    "plain": attention_call,
    "shared keys": lambda: attention_call(key_heads=2),
    "one mask": lambda: attention_call(mask=torch.randn(5, 5)),
    "a mask per head": lambda: attention_call(mask=torch.randn(2, 4, 5, 5)),
    "causal": lambda: attention_call(is_causal=True, scale=0.3),
    "written out": lambda: AttentionCall(
        "attn", torch.randn(2, 4, 5, 3), probabilities=torch.rand(2, 4, 5, 5)
    ),
}


@pytest.mark.parametrize("heads_at_a_time", [1, 3])
@pytest.mark.parametrize("name", CALLS)
def test_head_groups_are_the_block_in_pieces(name, heads_at_a_time, monkeypatch):
    monkeypatch.setattr(sequences, "GROUP_ENTRIES", 2 * 5 * 5 * heads_at_a_time)
    call, received = CALLS[name](), torch.randn(2, 4, 5, 3)
    for compute in (call.attention, received_by(call, received)):
        blocks = BlockSequence([compute], [call.shape])
        groups = list(blocks.head_groups(0))
        assert [group.shape[1] for group in groups] == {1: [1, 1, 1, 1], 3: [3, 1]}[heads_at_a_time]
        torch.testing.assert_close(torch.cat(groups, dim=1), blocks[0])


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
def test_rollouts_of_lazy_blocks_are_those_of_tensors(head_fusion, monkeypatch):
    monkeypatch.setattr(sequences, "GROUP_ENTRIES", 1)
    calls, received = [attention_call() for _ in range(3)], torch.randn(3, 2, 4, 5, 3)
    shapes = [call.shape for call in calls]
    attentions = BlockSequence([call.attention for call in calls], shapes)
    gradients = BlockSequence(
        [received_by(call, gradient) for call, gradient in zip(calls, received, strict=True)],
        shapes,
    )
    knobs = {"head_fusion": head_fusion, "discard_ratio": 0.5}
    expected = attention_rollout(list(attentions), **knobs)
    torch.testing.assert_close(attention_rollout(attentions, **knobs), expected)
    expected = gradient_rollout(list(attentions), list(gradients), **knobs)
    torch.testing.assert_close(gradient_rollout(attentions, gradients, **knobs), expected)
    mixed = gradient_rollout(attentions, list(gradients), **knobs)
    torch.testing.assert_close(mixed, expected)
