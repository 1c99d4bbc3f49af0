"""What each check takes and refuses, just at the border."""

import numpy as np
import pytest
import torch

from rollout.maths.checks import (
    MOST_PIXELS,
    check_array,
    check_index,
    check_number,
    check_pair,
    check_shapes,
    check_size,
    check_tensor,
)

AXES = "batch, rows, columns"


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3, 4), (0, 3, 4), (2, 3, 0), ()])
def test_other_axes_and_empty_ones_are_refused(shape):
    check_tensor("a map", torch.zeros(2, 1, 3), AXES)
    check_array("a map", np.zeros((2, 1, 3)), AXES)
    for check, made in ((check_tensor, torch.zeros(shape)), (check_array, np.zeros(shape))):
        with pytest.raises(ValueError, match=r"must be \(batch, rows, columns\) and not empty"):
            check("a map", made, AXES)


def test_the_other_library_is_named_with_the_cure():
    with pytest.raises(TypeError, match=r"must be a tensor .*got ndarray; torch.from_numpy makes"):
        check_tensor("a map", np.zeros((2, 3, 4)), AXES)
    with pytest.raises(TypeError, match=r"must be a numpy array .*got Tensor; .numpy\(\) makes"):
        check_array("a map", torch.zeros(2, 3, 4), AXES)
    for check in (check_tensor, check_array):
        with pytest.raises(TypeError, match="got list$"):
            check("a map", [[[1.0]]], AXES)


@pytest.mark.parametrize("kind", [torch.complex64, "meta", "sparse"])
def test_what_holds_no_real_numbers_is_refused(kind):
    made = torch.zeros(2, 3, device="meta") if kind == "meta" else torch.zeros(2, 3)
    made = made.to_sparse() if kind == "sparse" else made
    made = made.to(kind) if isinstance(kind, torch.dtype) else made
    with pytest.raises(ValueError, match="must be an ordinary tensor of real numbers, got one"):
        check_tensor("values", made, "a, b")
    for array in (np.zeros((2, 3), complex), np.array([["a"]]), np.array([[None]])):
        with pytest.raises(ValueError, match="must hold real numbers"):
            check_array("values", array, "a, b")
    for dtype in (bool, np.uint8, np.int64, np.float16):
        check_array("values", np.zeros((2, 3), dtype), "a, b")


def test_shapes_are_compared_by_name():
    check_shapes(one=torch.zeros(2, 3), other=torch.zeros(2, 3), third=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got one \(2, 3\) and other \(3, 2\)"):
        check_shapes(one=torch.zeros(2, 3), other=torch.zeros(3, 2))


def test_numbers_and_places():
    for number in (0, -1.5, np.float32(2), np.int64(3), 9e299):
        check_number("a level", number)
    for number in (True, np.True_, "1", None, float("nan"), float("inf"), -1e300, 1j):
        with pytest.raises(ValueError, match="a level must be a number, got"):
            check_number("a level", number)
    for index in (0, 2, np.int64(1)):
        check_index("a block", index, 3)
    for index in (-1, 3, True, 1.0, "1"):
        with pytest.raises(ValueError, match=r"a block must be in \[0, 2\], got"):
            check_index("a block", index, 3)


def test_pairs_and_sizes():
    for size in ((1, MOST_PIXELS), [MOST_PIXELS, 1]):
        check_size("size", size)
    for size in ((0, 1), (1, 0), (MOST_PIXELS + 1, 1), (1, MOST_PIXELS + 1)):
        with pytest.raises(ValueError, match=r"size must be \(height, width\) from 1 to"):
            check_size("size", size)
    check_pair("a patch", (0, -1), "(row, column)")
    for pair in ((1,), (1, 2, 3), (1.0, 2), (True, 1), "12", 3):
        with pytest.raises(ValueError, match=r"must be two whole numbers, \(row, column\); got"):
            check_pair("a patch", pair, "(row, column)")
