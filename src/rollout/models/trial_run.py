"""The first look at a network: what it makes of a black picture, and where its patches stand."""

from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import bare, field_of, observe, record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.maths.token_layout import TokenLayout
from rollout.models.readout import declared_pooling

TOWERS = ("vision_model", "visual", "vision_tower", "image_encoder")


def probe(network: nn.Module, image: Tensor) -> AttentionRecord:
    """One picture through the network: how many tokens, which grid, how many classes.

    Args:
        image: a black one, as the transform makes it, (1, channels, height, width).
    """
    gradients = declared_pooling(network) is None  # then they show what the classifier reads
    try:
        return record_attention(network, _as_weights(network, image), gradients=gradients)
    except UnsupportedNetworkError:
        raise
    except Exception as error:  # whatever a network raises when it is given the wrong thing
        cures = ["the transform it was trained with", "another image_size"]
        towers = [name for name in TOWERS if isinstance(getattr(network, name, None), nn.Module)]
        cures += [f"the part that takes images alone, .{name}" for name in towers]
        raise ValueError(
            f"{type(network).__name__} does not take what its transform makes, images of shape "
            f"{tuple(image.shape[1:])}; give wrap_model {', or '.join(cures)} ({error})"
        ) from error


def classifies(network: nn.Module, output: object) -> bool:
    """Whether the network returns a logit per class; towers of CLIP and its like return features.

    Args:
        output: what it returned.
    """
    classes = getattr(network, "num_classes", None)
    if isinstance(classes, int):
        return classes > 0
    if not isinstance(output, Tensor):
        return field_of(output, "logits") is not None
    return output.dim() == 2 and not type(network).__module__.startswith("open_clip.")


def check_order(network: nn.Module, image: Tensor, layout: TokenLayout) -> None:
    """See that the patches stand row by row behind the prefix: each corner reaches its own token.

    Args:
        image: as for `probe`.

    Raises:
        UnsupportedNetworkError: tokens are shuffled, stand after the patches, or the grid is wrong.
    """
    rows, columns = layout.grid_size
    corners = [(row, column) for row in (0, rows - 1) for column in (0, columns - 1)]
    variants = torch.cat([image, *(_with_noise(image, layout, corner) for corner in corners)])
    values = _first_values(network, _as_weights(network, variants))  # (1 + 4, tokens, values)
    if values is None or values.is_meta or values.shape[1] != layout.num_tokens:
        return
    changes = (values[1:] - values[:1]).abs().amax(dim=2)  # (corners, tokens)
    for corner, change in zip(corners, changes, strict=True):
        token = layout.token(corner)
        if change[token] <= 1e-3 * change.max() and change.max() > 0:
            found = int(change.argmax())
            raise UnsupportedNetworkError(
                f"the tokens of {type(network).__name__} are not {layout.num_prefix_tokens} prefix "
                f"tokens and then a grid of {rows} x {columns} patches row by row: the patch at "
                f"{corner} reaches token {found}, not token {token}",
                "the patches are not laid out row by row behind the other tokens",
            )


def _with_noise(image: Tensor, layout: TokenLayout, patch: tuple[int, int]) -> Tensor:
    """The image with noise in the place of one patch."""
    (rows, columns), (height, width) = layout.grid_size, image.shape[-2:]
    tall, wide = max(height // rows, 1), max(width // columns, 1)
    top, left = patch[0] * height // rows, patch[1] * width // columns
    changed = image.clone()
    part = changed[..., top : top + tall, left : left + wide]
    part += torch.rand(part.shape, generator=torch.Generator().manual_seed(0)).to(part)
    return changed


def _first_values(network: nn.Module, images: Tensor) -> Tensor | None:
    """The values of the first attention, (batch, tokens, values); the rest is not computed."""
    try:
        network = bare(network)
        observe(network, images, _FirstAttention(network, gradients=False))
    except _Found as found:
        values = found.values.reshape(len(images), -1, *found.values.shape[-2:])
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


def _as_weights(network: nn.Module, images: Tensor) -> Tensor:
    """The images on the device and in the precision of the network's weights."""
    return images.to(next(network.parameters()))
