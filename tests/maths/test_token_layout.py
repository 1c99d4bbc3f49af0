"""Layouts: counting, the readout's law, and where a patch lands on the grid."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rollout.maths.token_layout import POOLINGS, TokenLayout

READ = {"token": (0,), "distilled": (0, 1), "all": range(8), "token_avg": (0, *range(2, 8))}


def test_patches_are_laid_out_row_by_row_behind_the_prefix():
    layout = TokenLayout(grid_size=(2, 3), num_prefix_tokens=2)
    relevance = torch.arange(16.0).view(2, 8)
    grid = layout.to_grid(relevance)
    assert grid.shape == (2, 2, 3)
    assert_close(grid[0], torch.tensor([[2.0, 3, 4], [5, 6, 7]]))
    assert_close(grid[1], torch.tensor([[10.0, 11, 12], [13, 14, 15]]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_readout_is_a_distribution_over_its_tokens(pooling):
    tokens = READ.get(pooling, tuple(range(2, 8)))
    readout = TokenLayout((2, 3), 2, pooling).readout
    assert readout.shape == (8,)
    assert_close(readout.sum(), torch.tensor(1.0))
    assert readout.nonzero().flatten().tolist() == list(tokens)


def test_a_map_of_the_wrong_length_is_refused_not_reshaped():
    with pytest.raises(ValueError, match=r"\(batch, 7\): 1 prefix tokens .* got \(2, 6\)"):
        TokenLayout((2, 3)).to_grid(torch.rand(2, 6))


@pytest.mark.parametrize(
    "arguments",
    [((0, 3),), ((2, 3), -1), ((2, 3), 1, "mean"), ((2, 3), 0, "token"), ((2, 3), 1, "distilled")],
)
def test_an_impossible_layout_is_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        TokenLayout(*arguments)


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        (((3, 3), 1, "token"), True),
        (((3, 4), 1, "token"), False),
        (((2, 2), 2, "token"), False),
        (((3, 3), 1, "avg"), False),
        (((3, 3), 0, "avg"), False),
    ],
)
def test_the_published_code_knows_one_class_token_and_a_square(arguments, fits):
    assert TokenLayout(*arguments).fits_legacy == fits


def test_tokens_of_patches_are_counted_row_by_row():
    layout = TokenLayout((2, 3), 2)
    patches = [(row, column) for row in range(2) for column in range(3)]
    assert [layout.token(patch) for patch in patches] == [2, 3, 4, 5, 6, 7]


def test_numbers_of_few_bits_are_numbers():
    few, plain = TokenLayout((np.uint8(20), np.int8(30)), np.uint8(1)), TokenLayout((20, 30))
    assert few.num_tokens == 601 and few == plain
    assert few.token((np.uint8(19), np.uint8(29))) == 600


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (3, 2), (4, 4)])
def test_a_patch_beside_the_grid_is_refused_with_the_grid(rows, columns):
    layout = TokenLayout((rows, columns), 2)
    message = f"rows 0 to {rows - 1} and columns 0 to {columns - 1}, got"
    for patch in [(rows, 0), (0, columns), (-1, 0), (0, -1)]:
        with pytest.raises(ValueError, match=message):
            layout.token(patch)
