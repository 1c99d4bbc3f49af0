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


def drawn(mask, size, extent=None):
    """Each pixel asks in which patch its centre lies, and has nothing where it lies in none."""
    top, left, bottom, right = extent or (0, 0, *size)
    down = (np.arange(size[0]) + 0.5 - top) * mask.shape[1] / (bottom - top)
    across = (np.arange(size[1]) + 0.5 - left) * mask.shape[2] / (right - left)
    rows, columns = np.floor(down).astype(int), np.floor(across).astype(int)
    inside = ((rows >= 0) & (rows < mask.shape[1]))[:, None] & (columns >= 0)
    inside &= columns < mask.shape[2]
    rows, columns = rows.clip(0, mask.shape[1] - 1), columns.clip(0, mask.shape[2] - 1)
    return mask.numpy()[:, rows[:, None], columns] & inside


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


MARGINS = [None, (0, 0, 24, 40), (2, 3, 20.5, 27.25), (-4, -8, 26, 42)]


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**-7, 2.0**20])
def test_what_stands_out_does_so_in_any_unit(factor):
    values = torch.rand(2, 4, 6)
    expected = outstanding(values, 0.5)
    assert expected.flatten(1).any(dim=1).all()
    assert torch.equal(outstanding(factor * values, 0.5), expected)


@pytest.mark.parametrize("extent", MARGINS)
@given(MAPS, st.integers(27, 40), st.integers(42, 60), st.sampled_from([0.0, 1.0]))
def test_boxes_are_those_of_the_pieces_of_the_drawn_mask(extent, values, height, width, threshold):
    maps, size = torch.from_numpy(values), (height, width)
    pictures = drawn(outstanding(maps, threshold), size, extent)
    np.testing.assert_array_equal(
        draw_mask(outstanding(maps, threshold), size, extent).numpy(), pictures
    )
    found = find_boxes(maps, size, threshold, extent)
    for picture, boxes in zip(pictures, found, strict=True):
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


def test_numbers_of_few_bits_are_numbers():
    saliency_map = torch.rand(1, 4, 6)
    size = (np.uint8(200), np.uint8(250))
    assert find_boxes(saliency_map, size) == find_boxes(saliency_map, (200, 250))
    mask = outstanding(saliency_map)
    assert torch.equal(draw_mask(mask, size), draw_mask(mask, (200, 250)))


def test_what_lies_in_padding_has_no_box():
    values = torch.tensor([[[9.0, 0, 0], [0, 0, 0], [0, 0, 8]]])
    (box,) = find_boxes(values, (8, 8), extent=(-4, -4, 8, 8))[0]
    assert (box.left, box.top, box.right, box.bottom) == (4, 4, 8, 8)
    assert box.share == pytest.approx(8 / 17)


def test_patches_that_touch_at_a_corner_are_two_pieces():
    values = torch.tensor([[[2.0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 3.0]]])
    first, second = find_boxes(values, (4, 9))
    assert first == [Box(0, 0, 3, 2, pytest.approx(2 / 3)), Box(3, 2, 6, 4, pytest.approx(1 / 3))]
    assert second == [Box(6, 2, 9, 4, 1.0)]
