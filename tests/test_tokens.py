"""Layouts: counting, the readout's law, and where a patch lands on the grid."""

import pytest
import torch
from torch.testing import assert_close

from rollout.tokens import TokenLayout


def test_patches_are_laid_out_row_by_row_behind_the_prefix():
    layout = TokenLayout(grid_size=(2, 3), num_prefix_tokens=2)
    relevance = torch.arange(16.0).view(2, 8)
    grid = layout.to_grid(relevance)
    assert grid.shape == (2, 2, 3)
    assert_close(grid[0], torch.tensor([[2.0, 3, 4], [5, 6, 7]]))
    assert_close(grid[1], torch.tensor([[10.0, 11, 12], [13, 14, 15]]))


@pytest.mark.parametrize("tokens", [(0,), (0, 1), tuple(range(1, 7))])
def test_the_readout_is_a_distribution_over_its_tokens(tokens):
    readout = TokenLayout((2, 3), 1, tokens).readout
    assert readout.shape == (7,)
    assert_close(readout.sum(), torch.tensor(1.0))
    assert readout.nonzero().flatten().tolist() == list(tokens)


def test_a_map_of_the_wrong_length_is_refused_not_reshaped():
    with pytest.raises(ValueError, match=r"\(batch, 7\): 1 prefix tokens .* got \(2, 6\)"):
        TokenLayout((2, 3)).to_grid(torch.rand(2, 6))


@pytest.mark.parametrize(
    "arguments", [((0, 3),), ((2, 3), -1), ((2, 3), 1, ()), ((2, 3), 1, (7,)), ((2, 3), 1, (-1,))]
)
def test_an_impossible_layout_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        TokenLayout(*arguments)
