"""Models to be had: the bundled demo, any Vision Transformer of timm, or the user's own network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rollout import labels as label_tables
from rollout import weights
from rollout.hooks import record_attention
from rollout.layouts import read_layout
from rollout.model import Model, black_image
from rollout.preprocess import (
    ImageSize,
    Transform,
    as_size,
    default_transform,
    normalisation,
)
from rollout.probe import check_order, classifies, probe
from rollout.record import AttentionRecord
from rollout.recorder import UnsupportedNetworkError


def load_model(
    name: str = "demo",
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    image_size: ImageSize | None = None,
    device: str | torch.device = "auto",
    **options: object,
) -> Model:
    """The bundled demo model, or any Vision Transformer of timm.

    Args:
        name: "demo", or a timm name such as "deit_tiny_patch16_224" or "hf-hub:owner/model".
        checkpoint: a local weights file for the architecture `name`: safetensors, or a torch file
            of tensors (it is read with weights_only=True). Its classifier decides the classes.
        pretrained: False leaves the weights random.
        image_size: pixels, one number or (height, width), instead of the size that the weights were
            trained at; position embeddings are interpolated.
        device: "auto" takes a GPU where there is one.
        options: for `timm.create_model`, such as num_classes.

    Raises:
        ValueError: unknown name, or a checkpoint that is damaged or does not fit.
        ConnectionError: the pretrained weights are neither in the local cache nor within reach.
        UnsupportedNetworkError: the network cannot be explained; the message says why.
    """
    if name == "demo":
        if checkpoint is not None or options or image_size is not None:
            raise ValueError(
                "the demo model takes no checkpoint and no options; name an architecture"
            )
        network, labels = weights.load_demo()
        demo = wrap_model(network, labels=labels, name="demo", device=device)
        return replace(demo, multi_label=True)
    if image_size is not None:
        options["img_size"] = as_size(image_size)
    network = weights.create_network(name, checkpoint, pretrained, options)
    return wrap_model(network, name=name, device=device, image_size=image_size)


def wrap_model(
    network: nn.Module,
    *,
    transform: Transform | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    image_size: ImageSize | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
) -> Model:
    """A network that the user already has, ready to be explained: of timm, torchvision, Hugging
    Face, open_clip, or any module built on `scaled_dot_product_attention`.

    Args:
        network: put in eval mode, and moved to `device` if one is given.
        transform: RGB image to (channels, height, width), or an image processor of Hugging Face; by
            default the one that the network's own configuration describes.
        labels: one per class; by default the network's own, or ImageNet's where timm knows the
            network as trained on it.
        image_size: what the default transform makes, one number or (height, width).
        grid_size, num_prefix_tokens: the patch grid and the tokens before it, where they cannot be
            read off the network. Found or given, they are held against what reaches each token.

    Raises:
        UnsupportedNetworkError: the network cannot be explained; the message says why.
        ValueError: it does not take what the transform makes, or the labels are too many or few.
    """
    if device is not None:
        network = network.to(weights.find_device(device))
    if transform is None:
        transform = default_transform(network, image_size)
    transform = getattr(transform, "image_processor", transform)  # of images and texts together
    said = {"grid_size": grid_size, "num_prefix_tokens": num_prefix_tokens}
    given: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    image = black_image(transform)
    height, width = image.shape[-2:]
    try:
        first = probe(network, image)
        layout = read_layout(network, first, (height, width), **given)
        check_order(network, image, layout)
    except UnsupportedNetworkError as error:
        message = f"{name}: {error}" if name else str(error)
        raise UnsupportedNetworkError(message, error.finding) from error
    num_classes = first.logits.shape[-1] if classifies(network, first.output) else 0
    labels = label_tables.known_labels(network, num_classes) if labels is None else tuple(labels)
    if labels is not None and len(labels) != num_classes:
        raise ValueError(f"got {len(labels)} labels for a network with {num_classes} classes")
    mean, std = normalisation(transform)
    name = name or type(network).__name__
    return Model(
        network.eval(),
        transform,
        layout,
        labels,
        name,
        num_classes,
        mean,
        std,
        given_layout=given,
    )


def record_images(model: Model, images: Tensor, *, gradients: bool) -> AttentionRecord:
    """`record_attention`, saying so if the images do not have the shape that the network takes."""
    try:
        return record_attention(model.network, images, gradients=gradients)
    except (AssertionError, RuntimeError) as error:
        expected = tuple(black_image(model.transform).shape[1:])
        if tuple(images.shape[1:]) == expected:
            raise
        raise ValueError(
            f"{model.name} was given images of (batch, channels, height, width) = "
            f"{tuple(images.shape)}, its transform makes {expected}: {error}"
        ) from error
