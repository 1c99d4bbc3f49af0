"""See that the patches stand row by row behind the prefix: each reaches its own token."""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor, nn

from rollout.capture.first_attention import FirstAttention, first_attention
from rollout.errors import UnsupportedNetworkError
from rollout.maths.token_layout import TokenLayout

Patch = tuple[int, int]  # row, column

NEAR = 1  # patches away
MOST_PROBED = 8  # patches beside the corners


def check_order(network: nn.Module, image: Tensor, layout: TokenLayout) -> None:
    """Change the image at one patch after the other, and see which token changes.

    Where convolutions overlap, as in a network with a stem, a patch of the image reaches tokens far
    and wide. There it is the cell of the last convolution that is changed, which is in one token.

    Args:
        image: a black one as the network takes it, (1, channels, height, width).

    Raises:
        UnsupportedNetworkError: tokens are shuffled, stand after the patches, or the grid is wrong.
    """
    rows, columns = layout.grid_size
    patches = _probed(rows, columns)
    plain = first_attention(network, image)
    cells = plain.places.overlap and plain.convolution_size == layout.grid_size
    if cells:
        values = _with_shaken_cells(network, image, plain, patches)
    else:
        values = _with_noise_on_patches(network, image, layout, patches)
    if values is None or values.is_meta or values.shape[1] != layout.num_tokens:
        return
    changes = (values[1:] - values[:1]).abs().amax(dim=2)  # (patches, tokens)
    for patch, change in zip(patches, changes, strict=True):
        token = layout.token(patch)
        # Tokens far off must change less, or the patch is a strip of several. Where convolutions
        # overlap, neighbours on the image change too, and the noise decides which most.
        near = _are_near(layout, patch, 0 if cells else NEAR)
        others = change * torch.where(near, 0.5, 2.0).to(change)
        found = int(others.argmax())
        if change[token] < others[found]:
            raise UnsupportedNetworkError(
                f"the tokens of {type(network).__name__} are not {layout.num_prefix_tokens} prefix "
                f"tokens and then a grid of {rows} x {columns} patches row by row: the patch at "
                f"{patch} reaches token {found}, not token {token}",
                "the patches are not laid out row by row behind the other tokens",
            )


def _probed(rows: int, columns: int) -> list[Patch]:
    """The corners, and enough others to tell rows from columns whatever the two grids."""
    corners = {(row, column) for row in (0, rows - 1) for column in (0, columns - 1)}
    inner = [(row, column) for row in range(rows) for column in range(columns)]
    inner = [patch for patch in inner if patch not in corners]
    return [*sorted(corners), *Random(0).sample(inner, min(MOST_PROBED, len(inner)))]


def _are_near(layout: TokenLayout, patch: Patch, far: int) -> Tensor:
    """Which tokens are the patch's own or at most so many patches away, bool (tokens,)."""
    near = torch.zeros(layout.grid_size, dtype=torch.bool)
    row, column = patch
    near[max(row - far, 0) : row + far + 1, max(column - far, 0) : column + far + 1] = True
    return torch.cat([torch.zeros(layout.num_prefix_tokens, dtype=torch.bool), near.flatten()])


# The values of the first attention without a change, and with one at each patch:
# (1 + patches, tokens, values); None where no attention was reached.


def _with_shaken_cells(
    network: nn.Module, image: Tensor, plain: FirstAttention, patches: Sequence[Patch]
) -> Tensor | None:
    shaken = (first_attention(network, image, (plain.convolutions, *patch)) for patch in patches)
    return _together([_by_token(one.value, images=1) for one in (plain, *shaken)])


def _with_noise_on_patches(
    network: nn.Module, image: Tensor, layout: TokenLayout, patches: Sequence[Patch]
) -> Tensor | None:
    images = torch.cat([image, *(_with_noise(image, layout, patch) for patch in patches)])
    try:
        return _by_token(first_attention(network, images).value, len(images))
    except Exception:  # a network may take one image a call, or lay several out side by side
        return _together(
            [_by_token(first_attention(network, one).value, 1) for one in images.split(1)]
        )


def _together(values: Sequence[Tensor | None]) -> Tensor | None:
    found = [one for one in values if one is not None]
    return torch.cat(found) if len(found) == len(values) else None


def _by_token(value: Tensor | None, images: int) -> Tensor | None:
    """(images, tokens, values), from heads apart or in the batch."""
    if value is None:
        return None
    if len(value) % images:
        raise ValueError("the images did not stay apart")
    value = value.reshape(images, -1, *value.shape[-2:])
    return value.float().transpose(1, 2).flatten(2)


def _with_noise(image: Tensor, layout: TokenLayout, patch: Patch) -> Tensor:
    """The image with noise on the pixels that one patch was cut from."""
    height, width = image.shape[-2:]
    top, left, bottom, right = layout.extent or (0, 0, height, width)
    down = _pixels(top, (bottom - top) / layout.grid_size[0], patch[0], height)
    across = _pixels(left, (right - left) / layout.grid_size[1], patch[1], width)
    changed = image.clone()
    part = changed[..., down, across]
    part += torch.rand(part.shape, generator=torch.Generator().manual_seed(0)).to(part)
    return changed


def _pixels(start: float, size: float, place: int, limit: int) -> slice:
    """Of one patch along one side of the image, at least one pixel; padding is none."""
    first = min(max(round(start + place * size), 0), limit - 1)
    return slice(first, max(min(round(start + (place + 1) * size), limit), first + 1))
