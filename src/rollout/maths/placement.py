"""From the patch grid to pixels and back: a map belongs where its patches were cut from."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, interpolate, pad

from rollout.maths.checks import check_size, check_tensor
from rollout.maths.token_layout import Extent, TokenLayout


def stretch(
    maps: Tensor,
    size: tuple[int, int],
    extent: Extent | None = None,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Maps at the size of pictures, bilinear, unscaled: (batch, rows, columns) -> (batch, *size).

    Args:
        size: (height, width) of the pictures.
        extent: the pixels of an image of `image_size` that the grid covers; None is all of it. What
            no patch covers is 0, and what lies beyond the image is left out.
    """
    if extent is None:
        return interpolate(maps.unsqueeze(1), size, mode="bilinear").squeeze(1)
    top, left, bottom, right = shares(extent, image_size or size)
    down, across = _places(size[0], top, bottom), _places(size[1], left, right)
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # (height, width, 2)
    values = grid_sample(
        maps.unsqueeze(1),
        places.expand(len(maps), -1, -1, -1).to(maps),
        padding_mode="border",
        align_corners=False,
    ).squeeze(1)
    return values * (places.abs() <= 1).all(dim=-1)


def shares(extent: Extent | None, image_size: tuple[int, int]) -> Extent:
    """An extent in parts of the image's height and width; (0, 0, 1, 1) is all of it."""
    if extent is None:
        return 0.0, 0.0, 1.0, 1.0
    height, width = image_size
    top, left, bottom, right = extent
    return top / height, left / width, bottom / height, right / width


def under_grid(masks: Tensor, extent: Extent | None) -> Tensor:
    """The part of an image's masks that the grid covers, and nothing where it lies beyond.

    Args:
        masks: (batch, height, width), of the size that `extent` speaks of.
    """
    if extent is None:
        return masks
    height, width = masks.shape[-2:]
    top, left, bottom, right = map(round, extent)
    return pad(masks, (-left, right - width, -top, bottom - height))


def coverage_of(masks: Tensor, layout: TokenLayout) -> Tensor:
    """Share of each patch under the mask, where the layout's grid lies on the image.

    Args:
        masks: (batch, height, width), as the network saw the images.

    Returns:
        (batch, rows, columns).
    """
    return patch_coverage(under_grid(masks, layout.extent), layout.grid_size)


def _places(pixels: int, begin: float, end: float) -> Tensor:
    """Where each pixel's centre lies along the grid, which goes from -1 to 1."""
    centres = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
    return 2 * (centres - begin) / (end - begin) - 1


def patch_coverage(mask: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Share of each patch under the mask: (batch, height, width) -> (batch, rows, columns)."""
    check_tensor("mask", mask, "batch, height, width")
    grid_size = check_size("grid_size", grid_size, "(rows, columns)")
    return adaptive_avg_pool2d(mask.float().unsqueeze(1), grid_size).squeeze(1)
