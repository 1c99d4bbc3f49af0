"""timm's transform of a picture, for networks of any number of channels."""

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Any

from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import Compose, Grayscale, Lambda

Transform = Callable[..., Any]


def channel_transform(config: dict[str, Any], channels: int) -> Transform:
    """timm's, for any number of channels."""
    if channels == 3:
        return create_transform(**config)
    if channels == 1:
        config = config | {
            name: (sum(config[name]) / len(config[name]),) for name in ("mean", "std")
        }
        return Compose([Grayscale(), *create_transform(**config).transforms])
    # As timm makes weights for other channels out of those for red, green and blue.
    repeated = {name: _repeated(tuple(config[name]), channels) for name in ("mean", "std")}
    steps = create_transform(**config | repeated).transforms
    colours = Lambda(partial(_repeated_channels, channels=channels))
    return Compose([*steps[:-1], colours, steps[-1]])


def _repeated(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(islice(cycle(values), channels))


def _repeated_channels(image: Tensor, channels: int) -> Tensor:
    """Red, green, blue, red, ... up to so many channels: (3, height, width) to (channels, ...)."""
    return image[[channel % 3 for channel in range(channels)]]
