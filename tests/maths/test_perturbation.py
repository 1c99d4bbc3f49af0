"""Orders of removal and areas under curves: laws, and numpy as the other authority."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rollout.maths.perturbation import (
    area_under_curve,
    as_mask,
    edge_strength,
    kept_by_deletion,
    kept_by_insertion,
    rank_places,
)


def test_places_are_ranked_from_the_highest_down():
    saliency = torch.rand(3, 40)
    order = rank_places(saliency)
    assert (saliency.gather(1, order).diff(dim=1) <= 0).all()
    assert_close(order.sort(dim=1).values, torch.arange(40).expand(3, -1))


def test_equal_values_come_in_no_direction_and_always_the_same():
    order = rank_places(torch.zeros(2, 400))
    assert torch.equal(order[0], order[1])
    half = order[0, :200].double()
    assert abs(half.mean() - 199.5) < 30  # reading order would give 99.5
    with_peak = torch.zeros(1, 400)
    with_peak[0, 17] = 1
    assert rank_places(with_peak)[0, 0] == 17


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_what_deletion_takes_is_what_insertion_brings(share):
    order = rank_places(torch.rand(3, 24))
    left, back = kept_by_deletion(order, share), kept_by_insertion(order, share)
    both = torch.cat([left, back], dim=1).sort(dim=1).values
    assert_close(both, torch.arange(24).expand(3, -1))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_deletion_by_the_reversed_map_is_insertion_of_the_rest(share):
    saliency = torch.rand(3, 24)
    left = kept_by_deletion(rank_places(-saliency), share)
    assert_close(left, kept_by_insertion(rank_places(saliency), 1 - share))


def test_some_places_can_be_made_to_stay():
    order = rank_places(torch.rand(2, 6))
    assert kept_by_deletion(order, 1.0, least=1).shape == (2, 1)
    assert torch.equal(kept_by_insertion(order, 0.0, least=1), order[:, :1])
    assert kept_by_deletion(order, 1.0).shape == (2, 0)


def test_a_mask_shows_its_places():
    mask = as_mask(torch.tensor([[0, 5], [7, 2]]), (2, 4))
    assert mask.flatten(1).nonzero().tolist() == [[0, 0], [0, 5], [1, 2], [1, 7]]


def test_the_area_is_that_of_trapezoids_and_of_a_constant_the_constant():
    shares = (0.0, 0.05, 0.3, 0.9)
    values = torch.rand(2, 5, 4, dtype=torch.float64)
    expected = np.trapezoid(values.numpy(), shares, axis=-1) / 0.9
    np.testing.assert_allclose(area_under_curve(shares, values).numpy(), expected)
    assert_close(area_under_curve(shares, torch.full((3, 4), 0.7)), torch.full((3,), 0.7))
    for wrong in ((0.0,), (0.0, 0.0, 0.1, 0.2), (0.5, 0.2, 0.6, 0.7)):
        with pytest.raises(ValueError, match="shares must rise"):
            area_under_curve(wrong, values)


def test_edges_are_where_brightness_changes():
    pictures = torch.rand(2, 24, 40, 3, dtype=torch.float64)
    found = edge_strength(pictures, (3, 5))
    padded = np.pad(pictures.mean(dim=-1).numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge")
    down, across = np.gradient(padded, axis=(1, 2))
    length = np.hypot(down, across)[:, 1:-1, 1:-1]
    expected = length.reshape(2, 3, 8, 5, 8).mean(axis=(2, 4))
    np.testing.assert_allclose(found.numpy(), expected)
    step = torch.zeros(1, 24, 40, 3)
    step[:, :, 20:] = 1
    assert (edge_strength(step, (3, 5))[0].sum(dim=0) > 0).tolist() == [False, False, True] + [
        False
    ] * 2
