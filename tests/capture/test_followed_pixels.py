"""Where the cells of feature maps lie on the image.

The authority is a convolution of the pixels' own coordinates: with equal weights it returns the
centre of what each cell sees.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from rollout.capture.patch_places import PatchPlaces

SIZE = (52, 70)
COORDINATES = torch.stack(
    torch.meshgrid(*(torch.arange(side, dtype=torch.float64) + 0.5 for side in SIZE), indexing="ij")
)[None]  # (1, 2, height, width)

# Padding of the image (left, right, top, bottom), then convolutions: kernel and options.
CHAINS = {
    "patches": ((0, 0, 0, 0), [((4, 4), {"stride": 4})]),
    "patches of unequal sides": ((0, 0, 0, 0), [((4, 5), {"stride": (4, 5)})]),
    "four margins": ((1, 2, 3, 4), [((4, 4), {"stride": 4})]),
    "wide kernels": ((0, 0, 0, 0), [((7, 9), {"stride": (3, 5)})]),
    "steps after another": (
        (5, 0, 0, 3),
        [((6, 4), {"stride": 2}), ((5, 7), {"stride": (3, 1)}), ((2, 2), {"stride": 2})],
    ),
    "wide apart": ((0, 0, 0, 0), [((3, 2), {"dilation": (3, 5), "stride": 1})]),
    "padded": ((0, 0, 0, 0), [((4, 4), {"stride": 4, "padding": (2, 1)})]),
    "same": ((0, 0, 2, 1), [((5, 7), {"padding": "same"}), ((4, 4), {"stride": 4})]),
    "valid": ((0, 0, 0, 0), [((5, 7), {"padding": "valid"}), ((4, 4), {"stride": 4})]),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_cell_lies_where_its_kernel_looks(name):
    pad, convolutions = CHAINS[name]
    places, kept = PatchPlaces(), COORDINATES
    if any(pad):
        left, right, top, bottom = pad
        rows, columns = (
            torch.arange(-before, side + after, dtype=torch.float64) + 0.5
            for before, side, after in zip((top, left), SIZE, (bottom, right), strict=True)
        )
        kept = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
        places.padded(COORDINATES, kept, pad)
    for sizes, options in convolutions:
        kernel = torch.full((2, 1, *sizes), 1 / (sizes[0] * sizes[1]), dtype=torch.float64)
        before, kept = kept, F.conv2d(kept, kernel, groups=2, **options)
        places.convolved(before, kept, kernel, options)
    height, width = kept.shape[2:]
    top, left, bottom, right = places.extent((height, width))
    rows = top + (torch.arange(height) + 0.5) * (bottom - top) / height
    columns = left + (torch.arange(width) + 0.5) * (right - left) / width
    inside = slice(1, -1) if "padded" in name or "same" in name else slice(None)  # no zeros in it
    found = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).double()
    assert_close(found[:, inside, inside], kept[0, :, inside, inside])


def test_what_nobody_made_covers_the_image():
    """As what pooling made of a map: half as many cells on all of it."""
    places, image = PatchPlaces(), torch.zeros(1, 3, 48, 64)
    stem = torch.zeros(1, 8, 24, 32)
    places.convolved(image, stem, torch.zeros(8, 3, 2, 2), {"stride": 2})
    pooled, patches = torch.zeros(1, 8, 12, 16), torch.zeros(1, 9, 3, 4)
    places.convolved(pooled, patches, torch.zeros(9, 8, 4, 4), {"stride": (4, 4)})
    assert places.extent((3, 4)) == (0, 0, 48, 64)
    assert places.extent((12, 16)) == (0, 0, 48, 64)


def test_half_a_pixel_is_how_strides_round():
    """A kernel of 3 with padding 1 and steps of 2 sees half a pixel to the left, as all do."""
    places, image, halved = PatchPlaces(), torch.zeros(1, 3, 48, 64), torch.zeros(1, 8, 24, 32)
    places.convolved(image, halved, torch.zeros(8, 3, 3, 3), {"stride": 2, "padding": 1})
    assert places.extent((24, 32)) == (0, 0, 48, 64)
    beyond = torch.zeros(1, 8, 49, 65)
    places.convolved(image, beyond, torch.zeros(8, 3, 2, 2), {"padding": 1})
    assert places.extent((49, 65)) == (0, 0, 49, 65)


def test_padding_of_channels_moves_no_pixel():
    places, image = PatchPlaces(), torch.zeros(1, 3, 48, 64)
    places.padded(image, torch.zeros(1, 5, 50, 64), (0, 0, 1, 1, 1, 1))
    places.padded(torch.zeros(3, 48, 64), torch.zeros(3, 50, 64), (0, 0, 1, 1))
    places.convolved(image, torch.zeros(1, 8, 12, 16), torch.zeros(8, 3, 4, 4), {"stride": 4})
    assert places.extent((12, 16)) == (0, 0, 48, 64)
