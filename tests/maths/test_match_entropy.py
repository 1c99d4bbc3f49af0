"""More contrast: the entropy is met, and the order of the patches stays."""

import pytest
import torch
from torch.testing import assert_close

from rollout.maths.metrics import match_entropy, rank_correlation, relative_entropy


def test_the_entropy_is_met_and_the_order_kept():
    maps, wanted = 7 * torch.rand(3, 4, 6), torch.tensor([0.5, 0.8, 0.99]).double()
    matched = match_entropy(maps, wanted)
    assert_close(relative_entropy(matched), wanted)
    assert_close(rank_correlation(matched, maps), torch.ones(3).double())
    assert_close(matched.amax(dim=(1, 2)), torch.ones(3).double())


def test_a_map_that_has_the_entropy_is_left_as_it_is():
    maps = torch.rand(2, 4, 6).double()
    assert_close(match_entropy(maps, relative_entropy(maps)), maps / maps.amax((1, 2), True))


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_out_of_reach_is_met_as_closely_as_a_power_can(wanted):
    maps = torch.tensor([[[1.0, 1.0, 0.5, 0.2]]])  # two patches share the peak
    expected = {0.0: 0.5, 1.0: 1.0}[wanted]  # log 2 / log 4
    found = relative_entropy(match_entropy(maps, torch.tensor([wanted])))
    assert found.item() == pytest.approx(expected, abs=0.01)
