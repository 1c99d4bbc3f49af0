"""From a model and an image to an explanation: the one place where all parts meet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from rollout.files import whole_file
from rollout.flow import attention_flow
from rollout.fusion import (
    HeadFusion,
    check_discard_ratio,
    check_head_fusion,
    discard_lowest,
    fuse_heads,
)
from rollout.layouts import read_layout
from rollout.models import ImageSource, Model, record_images
from rollout.record import AttentionRecord
from rollout.rollout import attention_rollout, gradient_rollout

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

Target = int | str | Sequence[int | str] | Tensor | None


@dataclass(frozen=True)
class Method:
    """How a map is computed from a record.

    Attributes:
        compute: (record, target (batch,), readout (tokens,), settings) -> (batch, tokens).
        gradients: whether it needs the record's gradients, and so depends on the target.
        title, unit: for people; the unit is what a value of the map means.
    """

    compute: Callable[[AttentionRecord, Tensor, Tensor, dict[str, Any]], Tensor]
    gradients: bool
    title: str
    unit: str


def _raw_attention(
    record: AttentionRecord, target: Tensor, readout: Tensor, settings: dict[str, Any]
) -> Tensor:
    """What the readout attends to in the last block alone: no residual, no depth."""
    fused = fuse_heads(record.attentions[-1], settings["head_fusion"])
    return readout.to(fused) @ discard_lowest(fused, settings["discard_ratio"])


def _attention_rollout(
    record: AttentionRecord, target: Tensor, readout: Tensor, settings: dict[str, Any]
) -> Tensor:
    return attention_rollout(record.attentions, readout=readout, **settings)


def _gradient_rollout(
    record: AttentionRecord, target: Tensor, readout: Tensor, settings: dict[str, Any]
) -> Tensor:
    gradients = record.gradients(target, retain_graph=False)
    return gradient_rollout(record.attentions, gradients, readout=readout, **settings)


def _attention_flow(
    record: AttentionRecord, target: Tensor, readout: Tensor, settings: dict[str, Any]
) -> Tensor:
    """A bar of progress over the tokens, for maps that take more than a second."""
    total = len(record.logits) * record.num_tokens
    with tqdm(total=total, desc="attention flow", unit="token", delay=1, leave=False) as bar:
        flow = attention_flow(record.attentions, readout=readout, progress=bar.update, **settings)
    return flow.values


METHODS = {
    "raw_attention": Method(_raw_attention, False, "raw attention", "attention of the last block"),
    "attention_rollout": Method(
        _attention_rollout, False, "attention rollout", "share of the readout's content"
    ),
    "attention_flow": Method(
        _attention_flow, False, "attention flow", "maximum flow from the readout"
    ),
    "gradient_rollout": Method(
        _gradient_rollout, True, "gradient rollout", "share of the readout's evidence"
    ),
}


@dataclass(frozen=True)
class Explanation:
    """A map for each image of a batch, with everything that made it.

    Attributes:
        map: relevance of each patch, (batch, rows, columns), float32, non-negative, unscaled.
        method, settings: what was computed, and with which knobs.
        target: the class explained, one index per image; for methods that are blind to the class,
            the class that the picture's title speaks of.
        probability: the model's probability of each target, (batch,).
        labels: the name of each target.
        logits: the network's output, (batch, classes).
        pictures: the images as the network saw them, (batch, height, width, 3) in [0, 1].
    """

    map: Tensor
    method: str
    settings: dict[str, Any]
    target: tuple[int, ...]
    probability: Tensor
    labels: tuple[str, ...]
    logits: Tensor
    pictures: Tensor

    def saliency_map(self, size: tuple[int, int] | None = None) -> "ndarray":
        """The maps at `size`, by default the image's, unscaled: (batch, height, width)."""
        height, width = size or self.pictures.shape[1:3]
        resized = interpolate(self.map.unsqueeze(1), (height, width), mode="bilinear")
        return resized.squeeze(1).numpy()

    def title(self, index: int = 0) -> str:
        """Method, target and probability, such as "gradient rollout: dog (98 %)"."""
        method = METHODS[self.method].title
        return f"{method}: {self.labels[index]} ({self.probability[index]:.0%})"

    def plot(self) -> "Figure":
        """Each image beside its overlay, with a colour bar: a matplotlib figure."""
        from rollout.plots import plot_explanation

        return plot_explanation(self)

    def save(self, path: str | Path) -> Path:
        """Write the figure of `plot` to a file, PNG or PDF by its name; returns the path."""
        with whole_file(path) as partial:
            self.plot().savefig(partial, dpi=150)
        return Path(path)


def explain(
    model: Model,
    image: ImageSource,
    *,
    method: str = "gradient_rollout",
    target: Target = None,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
) -> Explanation:
    """Show what the model looked at in an image.

    Args:
        model: from `load_model` or `wrap_model`.
        image: a path or PIL image, a list of them, or a tensor (batch, channels, height, width)
            that is normalised as the network expects.
        method: one of METHODS.
        target: class index or label, or one per image; None takes the predicted class.
        head_fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each block's lowest fused attention to leave out, in [0, 1).
        start_block: the first block that counts.

    Raises:
        ValueError: a setting, image or target that makes no sense, named in the message.
    """
    check_method(method)
    check_head_fusion(head_fusion)
    check_discard_ratio(discard_ratio)
    settings = {
        "head_fusion": head_fusion,
        "discard_ratio": discard_ratio,
        "start_block": start_block,
    }
    images = model.images(image)
    chosen = None if target is None else model.class_indices(target, len(images))
    record = record_images(model, images, gradients=METHODS[method].gradients)
    _check_logits(record.logits)
    target_index = record.logits.argmax(dim=1) if chosen is None else chosen
    layout = read_layout(model.network, record)  # of this pass: sizes may be dynamic
    relevance = METHODS[method].compute(record, target_index, layout.readout, settings)
    return Explanation(
        map=layout.to_grid(relevance).float().cpu(),
        method=method,
        settings=settings,
        target=tuple(target_index.tolist()),
        probability=model.probabilities(record.logits).gather(1, target_index[:, None])[:, 0].cpu(),
        labels=tuple(model.label(index) for index in target_index.tolist()),
        logits=record.logits.float().cpu(),
        pictures=model.pictures(images),
    )


def check_method(method: str) -> None:
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")


def _check_logits(logits: Tensor) -> None:
    broken = [index for index, row in enumerate(logits.isfinite().all(dim=1).tolist()) if not row]
    if broken:
        raise ValueError(
            f"the network's output is not finite (NaN or infinite) for image {broken}; check the "
            "weights and the image's values, or use float32 instead of half precision"
        )
