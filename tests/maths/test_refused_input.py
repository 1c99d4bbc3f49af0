"""What cannot be rolled out is named: shapes, values, indices. And precision holds."""

import numpy as np
import pytest
import torch
from helpers import random_attention
from torch.testing import assert_close

from rollout import attention_rollout, gradient_rollout
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.legacy import legacy_attention_rollout
from rollout.maths.pooling import attention_readout
from rollout.maths.rollout import read_rows
from rollout.maths.token_layout import TokenLayout


def sequence(*blocks: torch.Tensor) -> BlockSequence:
    computed = [lambda heads, queries, block=block: block[:, heads, queries] for block in blocks]
    return BlockSequence(computed, [tuple(block.shape) for block in blocks])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (2, 1, 5, 5), (2, 3, 1, 5), (2, 3, 5, 1)])
def test_gradients_of_another_shape_are_not_broadcast(shape, lazy):
    blocks, gradients = [random_attention(2, 3, 5)] * 2, [torch.randn(2, 3, 5, 5)] * 2
    gradients[1] = torch.randn(shape)
    given = (sequence(*blocks), sequence(*gradients)) if lazy else (blocks, gradients)
    with pytest.raises(ValueError, match=r"block 1 has \(.*\) for \(2, 3, 5, 5\)"):
        gradient_rollout(*given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
def test_what_is_not_finite_is_refused_in_attention_and_gradient(value, head_fusion):
    attention = random_attention(2, 1, 5)
    broken = attention.clone()
    broken[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        attention_rollout([attention, broken], head_fusion=head_fusion)
    with pytest.raises(ValueError, match="NaN or infinite"):
        gradient_rollout([attention] * 2, [broken, attention], head_fusion=head_fusion)


@pytest.mark.parametrize(
    ("attentions", "error", "message"),
    [
        ([np.ones((1, 1, 2, 2))], TypeError, r"block 0 must be a tensor \(.*\), got ndarray"),
        ([torch.eye(5).expand(2, 5, 5)], ValueError, r"block 0 must .* got shape \(2, 5, 5\)"),
        ([random_attention(2, 3, 5)[:0]], ValueError, r"got shape \(0, 3, 5, 5\)"),
        (
            [random_attention(2), random_attention(1)],
            ValueError,
            "got 2 images in block 0 and 1 in block 1",
        ),
    ],
)
def test_attention_of_another_kind_is_named(attentions, error, message):
    with pytest.raises(error, match=message):
        attention_rollout(attentions)


@pytest.mark.parametrize("head", [False, True, 1.0, "0", None])
def test_a_head_is_a_whole_number(head):
    blocks = sequence(random_attention(), random_attention())
    with pytest.raises(ValueError, match=r"head must be in \[0, 2\] for 3 heads, got"):
        blocks.one_head(head)
    assert_close(blocks.one_head(np.int64(2))[1], blocks[1][:, 2:])  # type: ignore[arg-type]


@pytest.mark.parametrize("start_block", [True, 1.0, np.float64(1)])
def test_a_block_is_a_whole_number(start_block):
    with pytest.raises(ValueError, match="start_block must be in"):
        attention_rollout([random_attention()] * 3, start_block=start_block)


@pytest.mark.parametrize("grid_size", [(24,), 24, (4.0, 6), (True, 6), "46", (4, 6, 1)])
def test_a_grid_is_two_whole_numbers(grid_size):
    with pytest.raises(ValueError, match=r"grid_size must be two whole numbers, .* got"):
        TokenLayout(grid_size)


@pytest.mark.parametrize("patch", [(1.5, 2), (1,), 3, (1, 2, 3), (True, 2)])
def test_a_patch_is_two_whole_numbers(patch):
    with pytest.raises(ValueError, match=r"a patch must be two whole numbers, \(row, column\)"):
        TokenLayout((4, 6)).token(patch)
    assert TokenLayout((4, 6)).token((np.int64(1), 2)) == 9  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_readout_in_half_precision_is_a_distribution(dtype):
    attentions, layout = [random_attention(2, 3, 197) for _ in range(3)], TokenLayout((14, 14))
    readout = TokenLayout((14, 14), 1, "avg").readout
    assert abs(readout.to(dtype).double().sum() - 1) > 1e-4 / 2
    rows = attention_rollout(attentions, readout=readout.to(dtype))
    assert_close(rows.sum(dim=-1), torch.ones(2), rtol=0, atol=1e-5)
    assert_close(rows, attention_rollout(attentions, readout=readout), rtol=2e-2, atol=1e-6)
    with pytest.raises(ValueError, match="readout must sum to 1"):
        attention_rollout(attentions, readout=readout.to(dtype) * 0.9)
    assert layout.num_tokens == 197


def test_autocast_around_the_mathematics_changes_nothing():
    attentions, gradients = (
        [make(2, 3, 7, 7) for _ in range(3)]
        for make in (lambda *s: random_attention(*s[:3]), torch.randn)
    )
    readout, layout = torch.full((7,), 1 / 7), TokenLayout((2, 3), 1, "map")

    def computed() -> list[torch.Tensor]:
        return [
            attention_rollout(attentions),
            attention_rollout(attentions, readout=readout, discard_ratio=0.4),
            gradient_rollout(attentions, gradients),
            read_rows(readout, attentions[0][:, 0]),
            attention_readout(layout, attentions, gradients),
            legacy_attention_rollout(attentions, "max", 0.5),
        ]

    expected = computed()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = computed()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)
