"""Models ready to be explained: the network, its preprocessing, its token layout and its labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision.transforms import Normalize

from rollout import labels as label_tables
from rollout import weights
from rollout.hooks import UnsupportedNetworkError, record_attention
from rollout.images import load_image
from rollout.record import AttentionRecord
from rollout.tokens import TokenLayout

Transform = Callable[[Image.Image], Tensor]
ImageSource = str | Path | Image.Image | Tensor | Sequence[str | Path | Image.Image]


@dataclass(frozen=True)
class Model:
    """A network with all that is needed to explain an image.

    Attributes:
        network: in eval mode, on its device.
        transform: RGB image to (channels, height, width), as in the network's training.
        layout: where the tokens stand and which of them the classifier reads.
        labels: a description of each class, or None where they are not known.
        mean, std: what the transform normalised with, to show the image again.
        multi_label: whether several classes can be there at once (sigmoid instead of softmax).
    """

    network: nn.Module
    transform: Transform
    layout: TokenLayout
    labels: tuple[str, ...] | None
    name: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multi_label: bool = False

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def class_index(self, target: int | str) -> int:
        """The class meant by an index or a label, such as "dog"; see `labels.class_index`."""
        return label_tables.class_index(target, self.labels, self.num_classes)

    def label(self, index: int) -> str:
        return self.labels[index] if self.labels else f"class {index}"

    def probabilities(self, logits: Tensor) -> Tensor:
        """(batch, classes) in [0, 1]; they sum to 1 unless classes go together."""
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(dim=-1)

    def images(self, source: ImageSource) -> Tensor:
        """What the network takes: (batch, channels, height, width) on its device, in its precision."""
        if isinstance(source, Tensor):
            if source.dim() != 4:
                raise ValueError(
                    "an image tensor must be (batch, channels, height, width), normalised as the "
                    f"network expects; got shape {tuple(source.shape)}"
                )
            batch = source
        else:
            sources = source if isinstance(source, list | tuple) else [source]
            batch = torch.stack([self.transform(load_image(image)) for image in sources])
        return batch.to(self.device, self.dtype)

    def pictures(self, images: Tensor) -> Tensor:
        """The images as the network saw them, for the eye: (batch, height, width, 3) in [0, 1]."""
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        pictures = (images.detach().cpu().float() * std + mean).clamp(0, 1)
        return pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def load_model(
    name: str = "demo",
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    device: str | torch.device = "auto",
    **options: object,
) -> Model:
    """The bundled demo model, or any Vision Transformer of timm.

    Args:
        name: "demo", or a timm name such as "deit_tiny_patch16_224" or "hf-hub:owner/model".
        checkpoint: a local weights file for the architecture `name`: safetensors, or a torch file
            of tensors (it is read with weights_only=True). Its classifier decides the classes.
        pretrained: False leaves the weights random.
        device: "auto" takes a GPU where there is one.
        options: for `timm.create_model`, such as img_size.

    Raises:
        ValueError: unknown name, or a checkpoint that is damaged or does not fit.
        ConnectionError: the pretrained weights are neither in the local cache nor within reach.
    """
    if name == "demo":
        if checkpoint is not None or options:
            raise ValueError("the demo model takes no checkpoint and no options; name an architecture")
        network, labels = weights.load_demo()
        demo = wrap_model(network, labels=labels, name="demo", device=device)
        return replace(demo, multi_label=True)
    network = weights.create_network(name, checkpoint, pretrained, options)
    return wrap_model(network, name=name, device=device)


def wrap_model(
    network: nn.Module,
    *,
    transform: Transform | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """A network that the user already has, ready to be explained.

    Args:
        network: put in eval mode, and moved to `device` if one is given.
        transform: RGB image to (channels, height, width); by default timm's, from the network's own
            data configuration.
        labels: one per class; by default ImageNet's where timm knows the network as trained on it.
    """
    network = network.eval() if device is None else network.eval().to(_device(device))
    if transform is None:
        transform = create_transform(**resolve_data_config({}, model=network))
    probe = _probe(network, transform)
    num_classes = probe.logits.shape[-1]
    labels = label_tables.imagenet_labels(network) if labels is None else tuple(labels)
    if labels is not None and len(labels) != num_classes:
        raise ValueError(f"got {len(labels)} labels for a network with {num_classes} classes")
    mean, std = _normalisation(transform)
    layout = read_layout(network, probe)
    name = name or type(network).__name__
    return Model(network, transform, layout, labels, name, num_classes, mean, std)


def read_layout(network: nn.Module, record: AttentionRecord) -> TokenLayout:
    """The token layout as the network says it, held against the tokens that it really used."""
    prefix = getattr(network, "num_prefix_tokens", 1)
    grid_size = record.convolution_size
    if grid_size is None or prefix + grid_size[0] * grid_size[1] != record.num_tokens:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} has {record.num_tokens} tokens, which is not {prefix} prefix "
            f"tokens and a patch grid of {grid_size}; its layout cannot be read off"
        )
    return TokenLayout(grid_size, prefix, _readout_tokens(network, prefix, record.num_tokens))


def layout_of(model: Model, record: AttentionRecord) -> TokenLayout:
    """The layout of this very forward pass: networks with a dynamic size have a grid per image."""
    same = record.num_tokens == model.layout.num_tokens
    return model.layout if same else read_layout(model.network, record)


def _readout_tokens(network: nn.Module, prefix: int, tokens: int) -> tuple[int, ...]:
    pooling = getattr(network, "global_pool", "token")
    if hasattr(network, "head_dist"):  # distilled: the mean of two classifiers
        return 0, 1
    if pooling == "avg" or prefix == 0:
        return tuple(range(0 if getattr(network, "pool_include_prefix", False) else prefix, tokens))
    if pooling == "token":
        return (0,)
    raise UnsupportedNetworkError(
        f"{type(network).__name__} pools its tokens by {pooling!r}; class token and average are supported"
    )


def _probe(network: nn.Module, transform: Transform) -> AttentionRecord:
    """One black image through the network: how many tokens, which grid, how many classes."""
    parameter = next(network.parameters())
    image = transform(Image.new("RGB", (224, 224))).unsqueeze(0)
    return record_attention(network, image.to(parameter), gradients=False)


def _normalisation(transform: Transform) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the transform's last step; (0, 1) where it does not normalise."""
    for step in reversed(getattr(transform, "transforms", [])):
        if isinstance(step, Normalize):
            return tuple(map(float, step.mean)), tuple(map(float, step.std))
    return (0.0,), (1.0,)


def _device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:0") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, but torch sees no GPU; use auto or cpu")
    return chosen
