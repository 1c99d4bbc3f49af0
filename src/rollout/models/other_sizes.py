"""What a network would take that failed on an image: one of another size, or a film, by trying."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from math import isqrt

import timm
import torch
from PIL import Image
from torch import Tensor, nn

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.models.preprocess import apply_transform, default_transform, own_size

USUAL = (224, 256, 384)
FRAMES = (2, 8, 16)
MOST_TRIED = 8
MOST_PREFIX_TOKENS = 2

Size = tuple[int, int]


def size_that_works(network: nn.Module, image: Tensor) -> Size | None:
    """(height, width) of images that the network takes, unlike this one; None where none is found.

    Args:
        image: (1, channels, height, width), which it did not take.
    """
    given = (image.shape[-2], image.shape[-1])
    sizes = [size for size in dict.fromkeys(_candidates(network, given)) if size != given]
    for size in sizes[:MOST_TRIED]:
        with suppress(UnsupportedNetworkError):
            if _takes(network, image.new_zeros(*image.shape[:2], *size)):
                return size
    return None


def takes_films(network: nn.Module, image: Tensor) -> bool:
    """Whether it takes several such images at once, (1, frames, channels, height, width), or with
    the channels before the frames."""
    for frames in FRAMES:
        film = image.new_zeros(1, frames, *image.shape[1:])
        with suppress(UnsupportedNetworkError):
            if _takes(network, film) or _takes(network, film.transpose(1, 2)):
                return True
    return False


def size_as_published(name: str) -> Size | None:
    """(height, width) that timm's network of that name takes where no size is asked for.

    Raises:
        UnsupportedNetworkError: it cannot be rolled out at that size either.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are never filled
        network = timm.create_model(name, pretrained=False)
    image = apply_transform(default_transform(network), Image.new("RGB", (224, 224)))
    size = (image.shape[1], image.shape[2])
    return size if _takes(network, image.to("meta").unsqueeze(0)) else None


def _candidates(network: nn.Module, given: Size) -> Iterator[Size]:
    """What its parts say, what its position embeddings fit, whole patches, and usual sizes."""
    for module in network.modules():
        size = own_size(module)
        if size is not None:
            yield size
    steps = [one.stride[0] for one in network.modules() if isinstance(one, nn.Conv2d)]
    for name, weight in network.named_parameters():
        if steps and "pos" in name and weight.dim() in (2, 3):
            for prefix in range(MOST_PREFIX_TOKENS + 1):
                side = isqrt(max(weight.shape[-2] - prefix, 0))
                if side and side**2 == weight.shape[-2] - prefix:
                    yield side * int(steps[0]), side * int(steps[0])
    if steps and int(steps[0]) > 1:
        high, wide = (max(side // int(steps[0]), 1) * int(steps[0]) for side in given)
        yield high, wide
    yield from ((side, side) for side in USUAL)


def _takes(network: nn.Module, image: Tensor) -> bool:
    """Whether the network has an answer to such an image; raises if it has, and no attention."""
    try:
        record_attention(network, image, gradients=False)
    except UnsupportedNetworkError:
        raise
    except Exception:  # whatever a network raises when it is given the wrong thing
        return False
    return True
