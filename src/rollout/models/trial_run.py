"""The first look at a network: what it makes of a black picture, and where its patches stand."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import bare, observe, record_attention
from rollout.errors import ImageNotTakenError, UnsupportedNetworkError
from rollout.maths.token_layout import TokenLayout
from rollout.models.inputs import input_device, input_dtype
from rollout.models.layout import read_layout
from rollout.models.other_sizes import size_that_works, takes_films
from rollout.models.readout import declared_pooling

TOWERS = ("vision_model", "visual", "vision_tower", "image_encoder")


def check_network(network: object) -> None:
    """Refuse what is no network, with what would do."""
    if isinstance(network, nn.Module):
        return
    inner = getattr(network, "model", None)  # a pipeline of Hugging Face
    if isinstance(getattr(network, "network", None), nn.Module):
        cure = "it is a model already: pass it to explain, or its .network"
    elif isinstance(inner, nn.Module):
        cure = "pass its .model, and its .image_processor as transform"
    elif isinstance(network, str | Path):
        cure = "load_model takes a name, and a file of weights as its checkpoint"
    else:
        cure = "load_model loads one by its name"
    raise TypeError(
        f"wrap_model takes a torch.nn.Module, got {type(network).__name__} {network!r:.60}; {cure}"
    )


def refuse_volumes(network: nn.Module) -> None:
    """Refuse what cuts volumes or films into patches: a map of theirs is not flat."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((module for module in network.modules() if isinstance(module, kinds)), None)
    frames = getattr(getattr(network, "config", None), "num_frames", None)
    if isinstance(first, nn.Conv3d) or frames is not None:
        raise _not_flat(network)


def _not_flat(network: nn.Module) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        f"{type(network).__name__} takes volumes or films: its patches lie in three dimensions, "
        "and wrap_model explains flat images. record_attention(network, volume) takes them as they "
        "are, and attention_rollout and gradient_rollout what it records",
        "its patches lie in three dimensions",
    )


def first_look(
    network: nn.Module, image: Tensor, given: Mapping[str, Any]
) -> tuple[AttentionRecord, TokenLayout]:
    """What `probe` recorded, and the layout read off it and checked.

    Args:
        image: as for `probe`.
        given: grid_size or num_prefix_tokens, where the user knows better.
    """
    height, width = image.shape[-2:]
    try:
        first = probe(network, image)
        layout = read_layout(network, first, (height, width), **given)
        check_order(network, image, layout)
    except ValueError as error:
        if takes_films(network, _fitting(network, image)):
            raise _not_flat(network) from error
        raise
    return first, layout


def probe(network: nn.Module, image: Tensor) -> AttentionRecord:
    """One picture through the network: how many tokens, which grid, how many classes.

    Args:
        image: a black one, as the transform makes it, (1, channels, height, width).
    """
    image = _fitting(network, image)
    if declared_pooling(network) is None:  # then gradients show what the classifier reads
        try:
            return record_attention(network, image)
        except UnsupportedNetworkError as error:
            if error.finding != str(error):  # no graph of tokens, with gradients or without
                raise
        except Exception:  # methods without gradients may work all the same
            pass
    try:
        return record_attention(network, image, gradients=False)
    except UnsupportedNetworkError:
        raise
    except Exception as error:  # whatever a network raises when it is given the wrong thing
        size = size_that_works(network, image)
        raise ImageNotTakenError(
            f"{type(network).__name__} does not take what its transform makes, images of shape "
            f"{tuple(image.shape[1:])}; give wrap_model {', or '.join(_cures(network, size))} "
            f"({error})",
            size,
        ) from error


def _cures(network: nn.Module, size: tuple[int, int] | None) -> list[str]:
    """What to give wrap_model instead, as far as the network tells; `size` is one that it takes."""
    cures = ["the transform it was trained with"]
    if size is not None:
        cures.append("another image_size: it takes {} x {}".format(*size))
    if "interpolate_pos_encoding" in signature(network.forward).parameters:
        cures.append(
            "for images of another size a module that calls it with interpolate_pos_encoding=True"
        )
    if any(hasattr(module, "_hf_hook") for module in network.modules()):
        cures.append("the network without its weights offloaded")
    towers = [name for name in TOWERS if isinstance(getattr(network, name, None), nn.Module)]
    return cures + [f"the part that takes images alone, .{name}" for name in towers]


def check_order(network: nn.Module, image: Tensor, layout: TokenLayout) -> None:
    """See that the patches stand row by row behind the prefix: each reaches its own token.

    Args:
        image: as for `probe`.

    Raises:
        UnsupportedNetworkError: tokens are shuffled, stand after the patches, or the grid is wrong.
    """
    rows, columns = layout.grid_size
    patches = _probed(rows, columns)
    variants = torch.cat([image, *(_with_noise(image, layout, patch) for patch in patches)])
    values = _first_values(network, _fitting(network, variants))  # (1 + patches, tokens, values)
    if values is None or values.is_meta or values.shape[1] != layout.num_tokens:
        return
    changes = (values[1:] - values[:1]).abs().amax(dim=2)  # (patches, tokens)
    for patch, change in zip(patches, changes, strict=True):
        token = layout.token(patch)
        # Where convolutions overlap, its neighbours change too, and the noise decides which most;
        # tokens far off must change less, or the patch is a strip of several.
        others = change * torch.where(_are_near(layout, patch), 0.5, 2.0).to(change)
        found = int(others.argmax())
        if change[token] < others[found]:
            raise UnsupportedNetworkError(
                f"the tokens of {type(network).__name__} are not {layout.num_prefix_tokens} prefix "
                f"tokens and then a grid of {rows} x {columns} patches row by row: the patch at "
                f"{patch} reaches token {found}, not token {token}",
                "the patches are not laid out row by row behind the other tokens",
            )


def _are_near(layout: TokenLayout, patch: tuple[int, int]) -> Tensor:
    """Which tokens are the patch's own or its neighbours', bool (tokens,)."""
    near = torch.zeros(layout.grid_size, dtype=torch.bool)
    row, column = patch
    near[max(row - NEAR, 0) : row + NEAR + 1, max(column - NEAR, 0) : column + NEAR + 1] = True
    return torch.cat([torch.zeros(layout.num_prefix_tokens, dtype=torch.bool), near.flatten()])


NEAR = 1  # patches away
MOST_PROBED = 8  # patches beside the corners


def _probed(rows: int, columns: int) -> list[tuple[int, int]]:
    """The corners, and enough others to tell rows from columns whatever the two grids."""
    corners = {(row, column) for row in (0, rows - 1) for column in (0, columns - 1)}
    inner = [(row, column) for row in range(rows) for column in range(columns)]
    inner = [patch for patch in inner if patch not in corners]
    return [*sorted(corners), *Random(0).sample(inner, min(MOST_PROBED, len(inner)))]


def _with_noise(image: Tensor, layout: TokenLayout, patch: tuple[int, int]) -> Tensor:
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


def _first_values(network: nn.Module, images: Tensor) -> Tensor | None:
    """The values of the first attention, (batch, tokens, values); the rest is not computed."""
    try:
        return _values_of(network, images)
    except Exception:  # a network may take one image a call, or lay several out side by side
        each = [_values_of(network, image) for image in images.split(1)]
        values = [one for one in each if one is not None]
        return torch.cat(values) if len(values) == len(each) else None


def _values_of(network: nn.Module, images: Tensor) -> Tensor | None:
    network = bare(network)
    try:
        observe(network, images, _FirstAttention(network, gradients=False))
    except _Found as found:
        values = found.values
        if len(values) % len(images):
            raise ValueError("the images did not stay apart") from found
        values = values.reshape(len(images), -1, *values.shape[-2:])
        return values.float().transpose(1, 2).flatten(2)
    return None


class _Found(BaseException):
    """Leaves the network's forward pass; a network may catch an Exception of its own."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values


class _FirstAttention(AttentionRecorder):
    def _keep(self, output: Tensor, value: Tensor, **inputs: Any) -> Tensor:
        raise _Found(value.detach())


def _fitting(network: nn.Module, images: Tensor) -> Tensor:
    return images.to(input_device(network), input_dtype(network))
