"""Laws of fusing, discarding and normalising, and the plain loop that the fast code must equal."""

from inspect import signature

import numpy as np
import pytest
import torch
from helpers import BAD_FUSIONS, BAD_RATIOS, random_attention
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rollout.maths.fusion import (
    check_readout,
    discard_each,
    discard_lowest,
    fuse_heads,
    select_blocks,
    transition,
)
from rollout.maths.order_statistics import _select
from rollout.maths.pooling import attention_readout
from rollout.maths.rollout import attention_rollout


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
def test_fusing_reduces_the_heads_entry_by_entry(head_fusion):
    attention = random_attention(batch=2, heads=3, tokens=5)
    fused = fuse_heads(attention, head_fusion)
    reduce = {"mean": lambda heads: sum(heads) / 3, "max": max, "min": min}[head_fusion]
    for image, query, key in [(0, 0, 0), (1, 2, 4), (1, 4, 1)]:
        expected = reduce(attention[image, :, query, key].tolist())
        assert fused[image, query, key].item() == pytest.approx(expected)


def test_min_is_below_mean_is_below_max():
    attention = random_attention()
    low, middle, high = (fuse_heads(attention, fusion) for fusion in ("min", "mean", "max"))
    assert (low <= middle + 1e-6).all() and (middle <= high + 1e-6).all()


def discard_by_sorting(matrix: torch.Tensor, ratio: float) -> torch.Tensor:
    """One image, by the definition: sort, set the first int(ratio * entries) to 0, spare (0, 0)."""
    entries = sorted((value, place) for place, value in enumerate(matrix.flatten().tolist()))
    kept = matrix.flatten().clone()
    for _, place in entries[: int(ratio * len(entries))]:
        if place != 0:
            kept[place] = 0
    return kept.view_as(matrix)


@given(ratio=st.floats(0, 0.999), tokens=st.integers(1, 9), seed=st.integers(0, 99))
def test_discarding_equals_sorting(ratio, tokens, seed):
    torch.manual_seed(seed)
    fused = torch.rand(2, tokens, tokens, dtype=torch.float64)
    expected = torch.stack([discard_by_sorting(matrix, ratio) for matrix in fused])
    assert_close(discard_lowest(fused, ratio), expected, rtol=0, atol=0)


def test_discarding_is_per_image_and_leaves_its_input_alone():
    fused = torch.stack([torch.rand(5, 5), 100 * torch.rand(5, 5)])
    before = fused.clone()
    alone = torch.cat([discard_lowest(fused[:1], 0.7), discard_lowest(fused[1:], 0.7)])
    assert_close(discard_lowest(fused, 0.7), alone, rtol=0, atol=0)
    assert_close(fused, before, rtol=0, atol=0)


@pytest.mark.parametrize("ratios", [[0.5], [0.9, 0.1], [0.0, 0.5, 0.5], [0.2, 0.0, 0.7, 0.99]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_several_ratios_at_once_are_each_by_itself(ratios, dtype):
    fused = torch.rand(2, 7, 7).to(dtype)
    each = [discard_lowest(fused, ratio) for ratio in ratios]
    assert_close(list(discard_each(fused, ratios)), each, rtol=0, atol=0)


def test_the_class_token_is_spared_even_when_it_is_the_lowest():
    fused = torch.rand(2, 4, 4) + 1
    fused[:, 0, 0] = 0.5
    assert (discard_lowest(fused, 0.9)[:, 0, 0] == 0.5).all()


def test_equal_entries_are_treated_equally():
    uniform = torch.full((2, 5, 5), 0.2)
    assert_close(discard_lowest(uniform, 0.9), uniform)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_discarding_keeps_the_dtype(dtype):
    fused = torch.rand(2, 6, 6, dtype=torch.float64).to(dtype)
    kept = discard_lowest(fused, 0.5)
    assert kept.dtype == dtype
    assert (kept == 0).sum() > 0


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard_ratio", [0.0, 0.5, 0.9])
def test_transition_rows_are_distributions(head_fusion, discard_ratio):
    fused = discard_lowest(fuse_heads(random_attention(), head_fusion), discard_ratio)
    rows = transition(fused)
    assert (rows >= 0).all()
    assert_close(rows.sum(dim=-1), torch.ones(2, 5))


def test_transition_of_plain_attention_is_half_attention_half_identity():
    fused = fuse_heads(random_attention())
    assert_close(transition(fused), 0.5 * fused + 0.5 * torch.eye(5))


@pytest.mark.parametrize("ratio", BAD_RATIOS)
def test_a_ratio_outside_its_range_is_named(ratio):
    with pytest.raises(ValueError, match=r"discard_ratio must be a number in \[0, 1\), got"):
        discard_lowest(torch.rand(2, 3, 3), ratio)


@pytest.mark.parametrize("head_fusion", BAD_FUSIONS)
def test_an_unknown_fusion_is_named(head_fusion):
    with pytest.raises(ValueError, match=r"head_fusion must be one of .*'max'.* got "):
        fuse_heads(random_attention(), head_fusion)


def test_numbers_of_numpy_are_numbers():
    fused = torch.rand(2, 5, 5)
    assert_close(discard_lowest(fused, np.float32(0.5)), discard_lowest(fused, 0.5))


@pytest.mark.parametrize("start_block", [-1, 3, "1"])
def test_a_start_block_that_does_not_exist_is_named(start_block):
    with pytest.raises(ValueError, match=f"start_block must be in .*0, 2.* got {start_block!r}"):
        select_blocks([random_attention()] * 3, start_block)


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (torch.ones(4) / 4, "must have shape"),
        (torch.tensor(1.0), "must have shape"),
        (torch.ones(3, 3) / 3, "3 distributions for a batch of 2"),
        (torch.tensor([0.5, 0.6, 0.0]), "must sum to 1"),
        (torch.tensor([1, 1, 0]), "must sum to 1"),
        (torch.tensor([0, 0, 0]), "must sum to 1"),
        (torch.tensor([1.5, -0.5, 0.0]), "non-negative"),
        (torch.tensor([float("nan"), 1.0, 0.0]), "finite"),
    ],
)
def test_a_readout_that_is_no_distribution_is_refused(readout, message):
    with pytest.raises(ValueError, match=message):
        check_readout(readout, batch=2, tokens=3)


def test_a_readout_may_be_one_for_all_images():
    attentions, readout = [random_attention(2, 3, 5)] * 2, torch.rand(5).softmax(dim=0)
    expected = attention_rollout(attentions, readout=readout)
    assert expected.shape == (2, 5)
    for shape in [(1, 5), (2, 5)]:
        assert_close(attention_rollout(attentions, readout=readout.expand(shape)), expected)


def test_a_function_in_full_precision_keeps_its_name_and_its_words():
    assert attention_readout.__name__ == "attention_readout"
    assert "Returns:" in attention_readout.__doc__
    assert list(signature(attention_readout).parameters)[0] == "layout"


@pytest.mark.parametrize("entries", [1, 25, 9_000])
@pytest.mark.parametrize(
    "kind", ["spread", "mostly zero", "all equal", "sorted", "periodic", "apart"]
)
def test_selection_by_a_sample_equals_sorting(kind, entries):
    row = {
        "spread": torch.rand(entries),
        "mostly zero": torch.rand(entries).sub(0.6).clamp(min=0),
        "all equal": torch.full((entries,), 0.5),
        "sorted": torch.linspace(1, 2, entries),
        "periodic": torch.arange(entries) % 5 / 5,  # every fifth entry is no fair sample
        "apart": torch.arange(entries) + 1e5 * (torch.arange(entries) % 5 > 0),  # nor here
    }[kind].numpy()
    for ratio in (0, 0.1, 0.5, 0.9, 0.9999):
        index = int(ratio * entries)
        assert _select(row, [index]) == np.sort(row)[index]
