"""The rule for a patch that stands far above the rest, and what is said and done about it."""

import numpy as np
import pytest
import torch
from helpers import random_attention
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rollout.maths.dominance import (
    FAR,
    Dominance,
    above,
    attention_received,
    few,
    find_dominance,
    highest_of_rest,
    stands_out,
    trace_back,
)
from rollout.maths.scales import scale_top, shared_top

MAPS = arrays(np.float32, (4, 6), elements=st.floats(0, 1, width=16))


def test_nothing_is_left_of_a_single_patch():
    assert highest_of_rest(np.full((1, 1), 3.0)) == 0
    assert highest_of_rest(np.array([[3.0, 2.0]])) == 2


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_patches_above_are_ordered_whatever_the_numbers_are(dtype):
    saliency_map = np.zeros((10, 20), dtype)
    saliency_map[3, 4], saliency_map[1, 2] = 200, 1
    expected = [(1, 2), (3, 4)] if dtype is bool else [(3, 4), (1, 2)]
    assert above(saliency_map, 0.5) == expected


def flat_with(*peaks: float, size: tuple[int, int] = (14, 14)) -> np.ndarray:
    """Ones, but for some patches."""
    saliency_map = np.ones(size, np.float32)
    saliency_map.flat[: len(peaks)] = peaks
    return saliency_map


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ((FAR,), False),  # not more than FAR times the rest
        ((FAR + 0.1,), True),
        ((9, 9), True),  # a hundredth of 196 patches is two
        ((9, 9, 9), False),  # three are an object, not a dot
        ((), False),
    ],
)
def test_the_rule_at_its_borders(peaks, expected):
    saliency_map = flat_with(*peaks)
    assert stands_out(saliency_map) == expected
    assert scale_top(saliency_map) == (1 if expected else saliency_map.max())
    assert scale_top(saliency_map, "max") == saliency_map.max()
    assert above(saliency_map, scale_top(saliency_map)) == (
        [(0, place) for place in range(len(peaks))] if expected else []
    )


@pytest.mark.parametrize(
    ("patches", "expected"), [(1, 1), (149, 1), (150, 2), (196, 2), (1369, 14)]
)
def test_a_hundredth_of_the_patches_and_at_least_one_may_stand_out(patches, expected):
    assert few(patches) == expected


@given(MAPS, st.sampled_from([0.25, 2.0, 64.0]))
def test_the_rule_knows_no_unit_and_no_place(saliency_map, factor):
    assert stands_out(factor * saliency_map) == stands_out(saliency_map)
    assert stands_out(saliency_map[::-1, ::-1]) == stands_out(saliency_map)
    assert scale_top(saliency_map[::-1]) == scale_top(saliency_map)


@given(MAPS)
def test_a_scale_ends_at_a_value_of_the_map_and_leaves_few_out(saliency_map):
    before = saliency_map.copy()
    top = scale_top(saliency_map)
    assert top in saliency_map or (top == 1 and not saliency_map.any())
    left_out = above(saliency_map, top)
    assert len(left_out) == (saliency_map > top).sum() <= few(saliency_map.size)
    assert all(saliency_map[patch] > FAR * top for patch in left_out[:1])
    assert np.array_equal(saliency_map, before)


def test_one_patch_beside_zeros_and_a_grid_of_one_keep_their_scale():
    alone = np.zeros((4, 6), np.float32)
    alone[1, 2] = 0.3
    assert stands_out(alone) and scale_top(alone) == np.float32(0.3)
    assert not stands_out(np.ones((1, 1))) and scale_top(np.ones((1, 1))) == 1
    assert scale_top(np.zeros((4, 6))) == 1 and not stands_out(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="scale must be .* got 'robust'"):
        scale_top(alone, "robust")


def test_a_scale_for_several_maps_is_the_highest_of_their_own():
    small, dotted, zeros = flat_with(2) / 100, flat_with(50), np.zeros((14, 14))
    assert shared_top([small, zeros]) == small.max()
    assert shared_top([small, dotted, zeros]) == 1
    assert shared_top([small, dotted], "max") == 50
    assert shared_top([zeros]) == 1


def test_many_patches_above_a_top_of_ones_own_are_not_marked():
    assert above(flat_with(9, 9, 9), 5) == []
    assert above(flat_with(7, 9), 5) == [(0, 1), (0, 0)]  # highest first


def test_what_dominates_is_said_in_a_sentence():
    saliency_map = np.full((16, 16), 0.003)
    saliency_map[2, 8] = 0.1
    found = find_dominance(saliency_map)
    assert found.patch == (2, 8)
    assert found.share == pytest.approx(0.1 / saliency_map.sum())
    assert str(found) == "row 2, column 8 holds 12% of the map, 33 times the median"
    whole = Dominance((2, 8), 0.104, 33.2, 1, 1)
    assert str(whole) == (
        "row 2, column 8 holds 10% of the map, 33 times the median; it enters in block 1: "
        "try start_block=1"
    )
    assert str(Dominance((0, 3), 0.5, float("inf"), 4)) == (
        "row 0, column 3 holds 50% of the map; it enters in block 4"
    )
    assert find_dominance(flat_with()) is None


@pytest.mark.parametrize(
    ("drawn", "start", "left", "block", "cure"),
    [
        ([0.5, 0.1], 0, 0.2, 1, 1),
        ([0.5, 0.1], 0, 0.21, 1, None),  # more than half of 0.4 is left
        ([0.19, 0.21], 0, 0.1, 2, 2),  # 5 times the uniform share of 25 tokens is 0.2
        ([0.19, 0.21], 1, 0.1, 3, None),  # no block is left after that
        ([0.1, 0.1, 0.1], 0, 0.1, None, None),
    ],
)
def test_where_a_patch_enters_and_whether_leaving_that_out_helps(drawn, start, left, block, cure):
    asked = []

    def without(start_block):
        asked.append(start_block)
        saliency_map = np.full((4, 6), (1 - left) / 23)
        saliency_map[3, 5] = left
        return saliency_map

    found = trace_back(Dominance((1, 1), 0.4, 9.0), drawn, 25, start, 3, without)
    assert (found.block, found.start_block) == (block, cure)
    assert (found.patch, found.share) == ((1, 1), 0.4)
    assert asked == ([block] if block and block < 3 else [])


def test_what_all_tokens_draw_is_what_all_queries_spend():
    attention = random_attention(batch=2, heads=3, tokens=7, peak=3)
    received = attention_received(attention)
    assert received.shape == (2, 3, 7)
    assert torch.allclose(received.sum(dim=2), torch.ones(2, 3))
    by_hand = sum(attention[1, 2, query, 4] for query in range(7)) / 7
    assert received[1, 2, 4] == pytest.approx(by_hand.item())
