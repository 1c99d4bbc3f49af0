"""Read off a network where its tokens stand and which of them its classifier reads."""

from typing import Any

from torch import nn

from rollout.capture.attention_record import AttentionRecord
from rollout.errors import UnsupportedNetworkError
from rollout.maths.token_layout import Extent, Pooling, TokenLayout
from rollout.models.readout import _declared_prefix, find_pooling

MOST_PREFIX_TOKENS = 16  # timm's go to 10; beyond, it is the grid that was misread


def read_layout(
    network: nn.Module,
    record: AttentionRecord,
    image_size: tuple[int, int],
    *,
    pooling: Pooling | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
) -> TokenLayout:
    """The token layout of one pass, held against the tokens that the network really used.

    Args:
        record: of images of `image_size`, (height, width).
        pooling: what `find_pooling` said; None asks it.
        grid_size, num_prefix_tokens: what the user knows better; None reads it off.
    """
    grid = grid_size or _grid_size(network, record, image_size)
    found = pooling or find_pooling(network, record)
    declared = num_prefix_tokens if num_prefix_tokens is not None else _declared_prefix(network)
    if found == "class_attention":
        declared = 0  # its class token joins after the blocks
    prefix = record.num_tokens - grid[0] * grid[1] if grid else -1
    expected = range(MOST_PREFIX_TOKENS + 1) if declared is None else (declared,)
    if grid is None or prefix not in expected:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} has {record.num_tokens} tokens, {_misfit(grid, declared)}; "
            "its layout cannot be read off. Give wrap_model grid_size=(rows, columns) and "
            "num_prefix_tokens="
        )
    if not prefix and found in (None, "all", "token_avg"):
        found = "avg"
    return TokenLayout(grid, prefix, found or "token", _extent(network, record, grid, image_size))


def _misfit(grid_size: tuple[int, int] | None, num_prefix_tokens: int | None) -> str:
    if grid_size is None:
        return "and nothing says how its patches are laid out"
    prefix = "a few" if num_prefix_tokens is None else num_prefix_tokens
    return "which is not {} prefix tokens and {} x {} patches".format(prefix, *grid_size)


def _grid_size(
    network: nn.Module, record: AttentionRecord, image_size: tuple[int, int]
) -> tuple[int, int] | None:
    """What the last convolution before the blocks made, or the image cut into patches."""
    patch = _patch_size(network)
    if record.convolution_size is not None or patch is None:
        return record.convolution_size
    return image_size[0] // patch[0], image_size[1] // patch[1]


def _patch_size(network: nn.Module) -> tuple[int, int] | None:
    """Of patches that a linear layer embeds."""
    for module in network.modules():
        patch_size: Any = getattr(module, "patch_size", None)
        if isinstance(patch_size, int):
            return patch_size, patch_size
        if isinstance(patch_size, tuple) and len(patch_size) == 2:
            return patch_size
    return None


def _extent(
    network: nn.Module,
    record: AttentionRecord,
    grid_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Extent | None:
    """What the grid covers of the image; None for all of it, and where nothing is known."""
    extent, patch = record.convolution_extent, _patch_size(network)
    if record.convolution_size is None and patch is not None:
        extent = (0.0, 0.0, float(grid_size[0] * patch[0]), float(grid_size[1] * patch[1]))
    elif record.convolution_size != grid_size:
        return None  # the user's own grid
    return None if extent == (0, 0, *image_size) else extent
