"""A model ready to be explained: the network, its preprocessing, its layout and its labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import record_attention
from rollout.maths.token_layout import TokenLayout
from rollout.models import labels as label_tables
from rollout.models.image_checks import check_normalised, hidden_share
from rollout.models.images import load_image, separate
from rollout.models.layout import read_layout
from rollout.models.preprocess import (
    Transform,
    apply_transform,
    check_batch,
    stack,
)

Target = int | str | Sequence[int | str] | Tensor | None
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
        multi_label: whether several classes can be there at once (sigmoid instead of softmax).
        num_classes: 0 for a network without a classifier, which returns features.
        given_layout: grid_size or num_prefix_tokens, where the user knows better.
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
    given_layout: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line, where the network's own would be hundreds; `describe` tells more."""
        rows, columns = self.layout.grid_size
        return (
            f"Model({self.name}: {type(self.network).__name__}, {rows} x {columns} patches, "
            f"{self.num_classes} classes, {self.device})"
        )

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def record(self, images: Tensor, *, gradients: bool = True) -> AttentionRecord:
        """`record_attention`, saying so if the images have not the shape that the network takes."""
        try:
            return record_attention(self.network, images, gradients=gradients)
        except (AssertionError, RuntimeError) as error:
            expected = tuple(black_image(self.transform).shape[1:])
            if tuple(images.shape[1:]) == expected:
                raise
            raise ValueError(
                f"{self.name} was given images of (batch, channels, height, width) = "
                f"{tuple(images.shape)}, its transform makes {expected}: {error}"
            ) from error

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
        """One class index per image, (batch,); see `labels.class_indices`."""
        if not self.num_classes:
            raise ValueError(f"{self.name} has no classifier; got target={target!r}, give a score=")
        indices = label_tables.class_indices(target, self.labels, self.num_classes, batch)
        return torch.tensor(indices, device=self.device)

    def label(self, index: int) -> str:
        return self.labels[index] if self.labels else f"class {index}"

    def probabilities(self, logits: Tensor) -> Tensor:
        """(batch, classes) in [0, 1]; they sum to 1 unless classes go together."""
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(dim=-1)

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

        Of more than three channels the first three are shown, of two the first, in grey.
        """
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        pictures = (images.detach().cpu().float() * std + mean).clamp(0, 1)
        pictures = pictures[:, : 3 if images.shape[1] >= 3 else 1]
        return pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def black_image(transform: Transform) -> Tensor:
    return apply_transform(transform, Image.new("RGB", (224, 224))).unsqueeze(0)
