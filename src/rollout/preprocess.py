"""From an RGB picture to what a network takes, and how to find out what that is."""

from collections.abc import Callable, Sequence

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision.transforms import Compose, Grayscale, Normalize

Transform = Callable[[Image.Image], Tensor]


def default_transform(network: nn.Module) -> Transform:
    """timm's transform for the network's own data configuration, input size and channels."""
    config = resolve_data_config({}, model=network)
    channels = _input_channels(network)
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    config["input_size"] = (channels, *(size or config["input_size"][1:]))
    if channels == 3:
        return create_transform(**config)
    if channels != 1:
        raise ValueError(
            f"{type(network).__name__} takes images of {channels} channels; give wrap_model a "
            "transform that makes them from an RGB image"
        )
    config |= {name: (sum(config[name]) / len(config[name]),) for name in ("mean", "std")}
    return Compose([Grayscale(), *create_transform(**config).transforms])


def apply_transform(transform: Transform, image: Image.Image) -> Tensor:
    """(channels, height, width); a transform that makes something else is an error."""
    result = transform(image)
    if not isinstance(result, Tensor) or result.dim() != 3 or not result.is_floating_point():
        made = (
            f"{result.dtype} of shape {tuple(result.shape)}"
            if isinstance(result, Tensor)
            else type(result).__name__
        )
        raise ValueError(
            "transform must turn an RGB image into a floating point tensor (channels, height, "
            f"width), got {made}"
        )
    return result


def check_batch(images: Tensor) -> None:
    """Refuse a tensor that cannot be a batch of normalised images."""
    if images.dim() != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(
            "an image tensor must be (batch, channels, height, width), at least one image, in "
            "floating point and normalised as the network expects; "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )


def normalisation(transform: Transform) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the transform's last step; 0 and 1 where there is none."""
    steps: Sequence[object] = getattr(transform, "transforms", [])
    for step in reversed(steps):
        if isinstance(step, Normalize):
            return tuple(map(float, step.mean)), tuple(map(float, step.std))
    return (0.0,), (1.0,)


def _input_channels(network: nn.Module) -> int:
    """What the first convolution takes; it cuts the image into patches."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3
