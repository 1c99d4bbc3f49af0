"""A model ready to be explained: the network, its preprocessing, its layout and its labels."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError, shown
from rollout.maths.checks import check_index, check_tensor
from rollout.maths.token_layout import TokenLayout
from rollout.models import labels as label_tables
from rollout.models.image_checks import check_normalised, hidden_share
from rollout.models.images import load_image, separate
from rollout.models.inputs import input_device, input_dtype
from rollout.models.layout import read_layout
from rollout.models.outputs import Outputs, probabilities
from rollout.models.preprocess import (
    Transform,
    apply_transform,
    check_batch,
    stack,
)
from rollout.names import one_line
from rollout.settings import Backward, is_index

OneTarget = int | str | Set[int | str]
Target = OneTarget | Sequence[OneTarget] | Tensor | None
# What `load_image` opens, or several of it.
OneImage = str | Path | Image.Image | Tensor | ndarray | IO[bytes] | Mapping[str, Any]
ImageSource = OneImage | Iterable[OneImage]


@dataclass(frozen=True)
class Model:
    """A network with all that is needed to explain an image.

    Attributes:
        network: in eval mode, on its device.
        transform: RGB image to (channels, height, width), as in the network's training.
        layout: where the tokens stand and which of them the classifier reads.
        labels: a description of each class, or None where they are not known.
        mean, std: what the transform normalised with, to show the image again.
        outputs: what the network's output means, one of `outputs.OUTPUTS`.
        num_classes: 0 for a network without a classifier, which returns features.
        given_layout: grid_size or num_prefix_tokens, where the user knows better.
        picture_channels: one or three input channels that `pictures` shows; None takes the first
            three, or the first of two.
    """

    network: nn.Module
    transform: Transform
    layout: TokenLayout
    labels: tuple[str, ...] | None
    name: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: Outputs = "logits"
    given_layout: Mapping[str, Any] = field(default_factory=dict)
    picture_channels: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        """One line, where the network's own would be hundreds; `describe` tells more."""
        rows, columns = self.layout.grid_size
        name, kind = one_line(self.name), type(self.network).__name__
        return (
            f"Model({name}: {kind}, {rows} x {columns} patches, {self.num_classes} classes, "
            f"{self.device})"
        )

    @property
    def multi_label(self) -> bool:
        """Whether several classes can be there at once (sigmoid instead of softmax)."""
        return self.outputs == "multi_label"

    @property
    def device(self) -> torch.device:
        """Where the network takes its images."""
        return input_device(self.network)

    @property
    def dtype(self) -> torch.dtype:
        """In which precision the network takes its images."""
        return input_dtype(self.network)

    def record(
        self, images: Tensor, *, gradients: bool = True, backward: Backward = "plain"
    ) -> AttentionRecord:
        """`record_attention`, saying so if the images have not the shape that the network takes."""
        try:
            return record_attention(self.network, images, gradients=gradients, backward=backward)
        except (AssertionError, RuntimeError, ValueError) as error:
            expected = tuple(black_image(self.transform).shape[1:])
            unfit = tuple(images.shape[1:]) != expected
            if unfit and not isinstance(error, UnsupportedNetworkError):
                raise ValueError(
                    f"{self.name} was given images of (batch, channels, height, width) = "
                    f"{tuple(images.shape)}, its transform makes {expected}: {error}"
                ) from error
            if len(images) == 1 or not self._takes(images[:1], gradients):
                raise
            raise ValueError(
                f"{self.name} takes one image at a time, got {len(images)}; explain them one by "
                f"one ({error})"
            ) from error

    def _takes(self, images: Tensor, gradients: bool) -> bool:
        try:
            record_attention(self.network, images, gradients=gradients)
        except (AssertionError, RuntimeError, ValueError):
            return False
        return True

    def layout_of(self, record: AttentionRecord, images: Tensor) -> TokenLayout:
        """Where the tokens stand in one pass: sizes may be dynamic."""
        height, width = images.shape[-2:]
        pooling = self.layout.pooling
        return read_layout(
            self.network, record, (height, width), pooling=pooling, **self.given_layout
        )

    def class_index(self, target: int | str) -> int:
        """The class meant by an index or a label, such as "dog"; see `labels.class_index`."""
        return label_tables.class_index(target, self.labels, self.num_classes)

    def class_indices(self, target: object, batch: int) -> Tensor:
        """One class index per image, (batch,); see `labels.class_indices`.

        Returns:
            Where a set of classes is meant, which ones they are in each image: bool (batch,
            classes).
        """
        if not self.num_classes:
            raise ValueError(
                f"{self.name} has no classifier; got target={shown(target)}, give a score="
            )
        chosen = label_tables.class_indices(target, self.labels, self.num_classes, batch)
        indices = [one for one in chosen if isinstance(one, int)]
        if len(indices) == batch:
            return torch.tensor(indices, device=self.device)
        mask = torch.zeros(batch, self.num_classes, dtype=torch.bool, device=self.device)
        for row, one in zip(mask, chosen, strict=True):
            row[[one] if isinstance(one, int) else sorted(one)] = True
        return mask

    def label(self, index: int | Set[int]) -> str:
        """Such as "dog", or "tabby or tiger cat" for several classes."""
        if isinstance(index, Set):
            names = {one: self.label(one).split(",")[0] for one in index}
            return label_tables.joined([names[one] for one in sorted(names)])
        check_index("a class index", index, self.num_classes)
        nameless = "output" if self.num_classes == 1 else f"class {index}"
        return self.labels[index] if self.labels else nameless

    def probabilities(self, logits: Tensor) -> Tensor:
        """(batch, classes) in [0, 1]; NaN where the outputs are values that have none.

        They sum to 1 unless classes go together.
        """
        return probabilities(logits, self.outputs)

    def sources(self, source: ImageSource) -> Tensor | list[Any]:
        """The images in what was given, one by one, for `images` to prepare any of them."""
        if not isinstance(source, Tensor) or not source.is_floating_point():
            return separate(source)
        check_batch(source)
        return source

    def images(self, source: ImageSource) -> Tensor:
        """What the network takes, (batch, channels, height, width), on its device, in its dtype.

        Args:
            source: what `load_image` opens, or several of that in a list; these are pictures, and
                the transform prepares them. Tensors in floating point, (batch, channels, height,
                width) or in a list, are taken as they are.
        """
        return self.prepare(source)[0]

    def prepare(self, source: ImageSource) -> tuple[Tensor, tuple[float, ...]]:
        """What `images` makes, and of each image the share that the transform's crop hides."""
        sources = self.sources(source)
        if isinstance(sources, Tensor):
            check_normalised(sources, self.transform, self.name)
            return sources.to(self.device, self.dtype), (0.0,) * len(sources)
        made, hidden = zip(*map(self._prepared, sources), strict=True)
        return stack(made).to(self.device, self.dtype), hidden

    def _prepared(self, image: Any) -> tuple[Tensor, float]:
        """(channels, height, width); tensors in floating point are taken as what the transform
        makes, all else is a picture."""
        if isinstance(image, Tensor) and image.is_floating_point():
            check_batch(image[None])
            check_normalised(image, self.transform, self.name)
            return image, 0.0
        picture = load_image(image)
        return apply_transform(self.transform, picture), hidden_share(picture.size, self.transform)

    def black_image(self) -> Tensor:
        """What the transform makes of a black picture, as the network takes it: a batch of one."""
        return black_image(self.transform).to(self.device, self.dtype)

    def pictures(self, images: Tensor) -> Tensor:
        """The images as the network saw them, for the eye: (batch, height, width, 3) in [0, 1].

        Of other channels than one or three some are shown, each picture by its own range of values.
        """
        check_tensor("images", images, "batch, channels, height, width")
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        pictures = images.detach().cpu().float() * std + mean
        channels = pictures.shape[1]
        shown = self.picture_channels or tuple(range(3 if channels > 2 else 1))
        pictures = pictures[:, list(shown)]
        if channels not in (1, 3):
            low, high = (
                end(pictures, dim=(1, 2, 3), keepdim=True) for end in (torch.amin, torch.amax)
            )
            pictures = (pictures - low) / (high - low).clamp(min=1e-12)
        return pictures.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def black_image(transform: Transform) -> Tensor:
    return apply_transform(transform, Image.new("RGB", (224, 224))).unsqueeze(0)


def as_channels(channels: Sequence[int] | None, given: int) -> tuple[int, ...] | None:
    """One or three of the channels that a network is given; None stays."""
    if channels is None:
        return None
    chosen = tuple(channels) if isinstance(channels, list | tuple | range) else ()
    if len(chosen) not in (1, 3) or not all(is_index(one) and 0 <= one < given for one in chosen):
        raise ValueError(
            f"picture_channels must be one or three of the channels 0 to {given - 1}, got "
            f"{shown(channels)}"
        )
    return chosen


def check_model(model: object) -> None:
    """Refuse a bare network, a name or a pipeline, with what makes a model of it."""
    if isinstance(model, Model):
        return
    if isinstance(model, str | Path):
        cure = f"pass load_model({shown(str(model))})"
    elif isinstance(model, nn.Module):
        cure = "pass wrap_model(network)"
    elif isinstance(getattr(model, "model", None), nn.Module):  # a pipeline of Hugging Face
        cure = "pass wrap_model(pipeline.model)"
    else:
        cure = "load_model and wrap_model make one"
    raise TypeError(f"model must be a Model, got {type(model).__name__}; {cure}")
