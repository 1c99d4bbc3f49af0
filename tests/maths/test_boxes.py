"""Boxes of maps: they agree with the mask drawn at image size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import find_objects, label

from rollout.maths.boxes import Box, draw_mask, find_boxes, outstanding

MAPS = arrays(np.float32, (2, 3, 5), elements=st.floats(0, 1, width=16))


def drawn(mask, size):
    """Each pixel asks in which patch its centre lies."""
    height, width = size
    rows = ((np.arange(height) + 0.5) * mask.shape[1] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[2] / width).astype(int)
    return mask.numpy()[:, rows[:, None], columns]


def test_a_patch_stands_out_above_the_mean_plus_deviations():
    values = torch.tensor([[[0.0, 0, 0, 4], [0, 0, 0, 0]], [[1.0, 2, 3, 4], [5, 6, 7, 8]]])
    for threshold in (0.0, 0.5, 1.0):
        flat = values.numpy().reshape(2, -1)
        level = flat.mean(axis=1) + threshold * flat.std(axis=1)
        expected = values.numpy() > level[:, None, None]
        np.testing.assert_array_equal(outstanding(values, threshold).numpy(), expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-30, 7.0])
def test_a_map_without_contrast_has_neither_mask_nor_box(value):
    values = torch.full((2, 14, 13), value)
    assert not outstanding(values).any()
    assert find_boxes(values, (100, 90)) == [[], []]


@given(MAPS, st.integers(3, 40), st.integers(5, 40), st.sampled_from([0.0, 1.0]))
def test_boxes_are_those_of_the_pieces_of_the_drawn_mask(values, height, width, threshold):
    maps = torch.from_numpy(values)
    pictures = drawn(outstanding(maps, threshold), (height, width))
    np.testing.assert_array_equal(
        draw_mask(outstanding(maps, threshold), (height, width)).numpy(), pictures
    )
    for picture, boxes in zip(pictures, find_boxes(maps, (height, width), threshold), strict=True):
        pieces, _ = label(picture)
        expected = {
            (place[1].start, place[0].start, place[1].stop, place[0].stop)
            for place in find_objects(pieces)
        }
        assert {(box.left, box.top, box.right, box.bottom) for box in boxes} == expected
        assert len(boxes) == len(expected)


@given(MAPS)
def test_shares_are_of_the_whole_map_and_fall(values):
    maps = torch.from_numpy(values)
    mask = outstanding(maps)
    for one, kept, boxes in zip(maps, mask, find_boxes(maps, (30, 50)), strict=True):
        shares = [box.share for box in boxes]
        assert shares == sorted(shares, reverse=True)
        total = one.double().sum()
        expected = (one.double()[kept].sum() / total).item() if total else 0.0
        assert sum(shares) == pytest.approx(expected)


def test_patches_that_touch_at_a_corner_are_two_pieces():
    values = torch.tensor([[[2.0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 3.0]]])
    first, second = find_boxes(values, (4, 9))
    assert first == [Box(0, 0, 3, 2, pytest.approx(2 / 3)), Box(3, 2, 6, 4, pytest.approx(1 / 3))]
    assert second == [Box(6, 2, 9, 4, 1.0)]
