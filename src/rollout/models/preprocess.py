"""From an RGB picture to what a network takes, and how to find out what that is."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    resolve_data_config,
)
from torch import Tensor, nn
from torchvision.transforms import Normalize

from rollout.errors import shown
from rollout.maths.checks import check_real
from rollout.models.channels import Transform, channel_transform

ImageSize = int | tuple[int, int]


_CLIP = {"mean": OPENAI_CLIP_MEAN, "std": OPENAI_CLIP_STD, "crop_pct": 1.0}


_IMAGENET = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}


_WHOLE = {"crop_mode": "squash", "crop_pct": 1.0}  # resized, whatever its shape; nothing cut off


_VIT = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", **_WHOLE}


# What the published image processors of these models do, by the start of their type; the first
# that fits counts.
_HUGGING_FACE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("clip", "metaclip", "altclip", "mlcd", "aimv2"), _CLIP),
    **dict.fromkeys(("chinese_clip", "blip", "instructblip"), _CLIP | _WHOLE),
    **dict.fromkeys(("deit", "dinov2"), _IMAGENET),
    **dict.fromkeys(("dinov3", "vit_mae", "vit_msn"), _VIT | _IMAGENET),
    **dict.fromkeys(("siglip", "beit", "data2vec"), _VIT | {"interpolation": "bicubic"}),
    "": _VIT,
}


def default_transform(network: nn.Module, image_size: ImageSize | None = None) -> Transform:
    """timm's transform for the network's own data configuration, input size and channels.

    Args:
        image_size: one number or (height, width), instead of the network's own.
    """
    network = _described(network)
    own = _open_clip_transform(network, image_size)
    if own is not None:
        return own
    channels = _input_channels(network)
    size = as_size(image_size) if image_size is not None else own_size(network)
    config: dict[str, Any] = {}
    try:
        config |= resolve_data_config({}, model=network) | _own_preprocessing(network)
        config["input_size"] = (channels, *(size or config["input_size"][1:]))
        transform = channel_transform(config, channels)
        apply_transform(transform, Image.new("RGB", (32, 32)))
    except Exception as error:  # a configuration from elsewhere may say anything
        said = ", ".join(f"{name}={shown(config.get(name))}" for name in _SETTINGS)
        raise ValueError(
            f"the preprocessing that {type(network).__name__} describes cannot be made ({said}: "
            f"{' '.join(f'{type(error).__name__} {error}'.split())}); give wrap_model a transform"
        ) from error
    if channels not in (1, 3):
        warnings.warn(
            f"{type(network).__name__} takes images of {channels} channels: of a picture, red, "
            "green and blue are repeated to make them, as timm repeats pretrained weights; if its "
            "channels mean something else, give wrap_model a transform, or explain tensors",
            stacklevel=3,
        )
    return transform


_SETTINGS = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def _open_clip_transform(network: nn.Module, image_size: ImageSize | None) -> Transform | None:
    """open_clip's own, where its factory left on the tower how images were prepared in training."""
    given = getattr(network, "preprocess_cfg", None)
    if not isinstance(given, Mapping) or "resize_mode" not in given:
        return None
    size = {} if image_size is None else {"size": as_size(image_size)}
    open_clip = import_module("open_clip.transform")  # which made the network, so it is there
    return open_clip.image_transform_v2(
        open_clip.PreprocessCfg(**{**given, **size}), is_train=False
    )


def as_size(image_size: ImageSize) -> tuple[int, int]:
    """(height, width) from one number or two."""
    given = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = tuple(given) if isinstance(given, list | tuple) else ()
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            f"image_size must be a number of pixels or (height, width), got {shown(image_size)}"
        )
    return size


def own_size(network: nn.Module) -> tuple[int, int] | None:
    """Where timm, Hugging Face, torchvision and open_clip keep the size of their images."""
    config = getattr(network, "config", None)
    for holder, name in (
        (getattr(network, "patch_embed", None), "img_size"),
        (getattr(config, "vision_config", config), "image_size"),
        (network, "image_size"),
    ):
        size = getattr(holder, name, None)
        if size is not None:
            return as_size(size if isinstance(size, int) else tuple(size))
    return None


def _own_preprocessing(network: nn.Module) -> dict[str, Any]:
    """What networks outside timm say, or are known to be trained with."""
    kind = getattr(getattr(network, "config", None), "model_type", None)  # Hugging Face
    if kind is not None:
        return next(_HUGGING_FACE[name] for name in _HUGGING_FACE if kind.startswith(name))
    mean, std = (getattr(network, name, None) for name in ("image_mean", "image_std"))
    if mean is not None and std is not None:  # open_clip
        return _CLIP | {"mean": tuple(mean), "std": tuple(std)}
    return _CLIP if type(network).__module__.startswith("open_clip.") else {}


def _described(network: nn.Module) -> nn.Module:
    """The part that says how its images are prepared: the network, or the tower that it wraps."""
    for name in ("visual", "timm_model"):
        inner = getattr(network, name, None)
        if isinstance(inner, nn.Module):
            return inner
    return network


def apply_transform(transform: Transform, image: Image.Image) -> Tensor:
    """(channels, height, width); a transform that makes something else is an error."""
    if hasattr(transform, "image_mean"):  # an image processor of Hugging Face
        result = transform(image, return_tensors="pt")["pixel_values"][0]
    else:
        result = transform(image)
    if not isinstance(result, Tensor) or result.dim() != 3 or not result.is_floating_point():
        made = (
            f"{result.dtype} of shape {tuple(result.shape)}"
            if isinstance(result, Tensor)
            else type(result).__name__
        )
        volume = isinstance(result, Tensor) and result.dim() == 4
        more = "; record_attention(network, volumes) takes volumes and films" if volume else ""
        raise ValueError(
            "transform must turn an RGB image into a floating point tensor (channels, height, "
            f"width), got {made}{more}"
        )
    check_real("what the transform makes", result)
    return result


def stack(images: Sequence[Tensor]) -> Tensor:
    """A batch of images of one size, (batch, channels, height, width)."""
    check_one_size([image.shape for image in images])
    return torch.stack(list(images))


def check_one_size(shapes: Sequence[Sequence[int]]) -> None:
    """Refuse images that cannot be one batch."""
    sizes = sorted({tuple(shape) for shape in shapes})
    if len(sizes) > 1:
        raise ValueError(
            f"the transform makes images of different sizes, such as {sizes[0]} and {sizes[-1]}, "
            "which cannot be one batch; explain them one by one, or give wrap_model a transform "
            "that makes one size"
        )


def check_batch(images: Tensor) -> None:
    """Refuse a tensor that cannot be a batch of normalised images."""
    check_real("an image tensor", images)
    if images.dim() != 4 or 0 in images.shape or not images.is_floating_point():
        raise ValueError(
            "an image tensor must be (batch, channels, height, width), at least one image, in "
            "floating point and normalised as the network expects; "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )


def normalisation(transform: Transform) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the transform's last step; 0 and 1 where there is none."""
    own: Any = transform
    if hasattr(own, "image_mean"):  # an image processor of Hugging Face
        return tuple(own.image_mean), tuple(own.image_std)
    steps: Sequence[object] = getattr(transform, "transforms", [])
    for step in reversed(steps):
        if isinstance(step, Normalize):
            mean, std = (np.ravel(value).tolist() for value in (step.mean, step.std))
            return tuple(mean), tuple(std)
    return (0.0,), (1.0,)


def _input_channels(network: nn.Module) -> int:
    """What the first convolution takes, if it cuts the image up: none of its pixels overlap."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            cuts = module.kernel_size == module.stride and max(module.stride) > 1
            return module.in_channels if cuts or module.in_channels == 1 else 3
    return 3
