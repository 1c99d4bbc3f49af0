"""From a model and an image to an explanation: the one place where all parts meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import interpolate

from rollout.files import whole_file
from rollout.fusion import HeadFusion
from rollout.methods import METHODS, Settings, check_method
from rollout.model import ImageSource, Model
from rollout.record import Score
from rollout.recording import Recording, record_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

Target = int | str | Sequence[int | str] | Tensor | None


@dataclass(frozen=True)
class Explanation:
    """A map for each image of a batch, with everything that made it.

    Attributes:
        map: relevance of each patch, (batch, rows, columns), float32, non-negative, unscaled.
        method, settings: what was computed, and with which knobs.
        target: the class explained, one index per image; for methods that are blind to the class,
            the class that the picture's title speaks of. None where a score was explained, or the
            network has no classifier.
        probability: the model's probability of each target, (batch,); None without a target.
        labels: the name of each target; None without one.
        logits: the network's output, (batch, classes); its features where it has no classifier.
        pictures: the images as the network saw them, (batch, height, width, 3) in [0, 1].
    """

    map: Tensor
    method: str
    settings: Settings
    target: tuple[int, ...] | None
    probability: Tensor | None
    labels: tuple[str, ...] | None
    logits: Tensor
    pictures: Tensor

    @classmethod
    def of(
        cls, recording: Recording, method: str, target: Tensor | None, settings: Settings
    ) -> "Explanation":
        """What `explain` returns, from images that were recorded before.

        Args:
            target: class indices, (batch,); None follows the recording's score.
        """
        model, logits = recording.model, recording.record.logits
        indices = None if target is None else tuple(target.tolist())
        probability = None
        if target is not None:
            probability = model.probabilities(logits).gather(1, target[:, None])[:, 0].cpu()
        return cls(
            map=recording.relevance(method, target, settings),
            method=method,
            settings=settings,
            target=indices,
            probability=probability,
            labels=None if indices is None else tuple(model.label(index) for index in indices),
            logits=logits.float().cpu(),
            pictures=model.pictures(recording.images),
        )

    def __repr__(self) -> str:
        titles = ", ".join(self.title(index) for index in range(len(self.map)))
        return f"Explanation({titles}; map (batch, rows, columns) = {tuple(self.map.shape)})"

    def saliency_map(self, size: tuple[int, int] | None = None) -> "ndarray":
        """The maps at `size`, by default the image's, unscaled: (batch, height, width)."""
        height, width = size or self.pictures.shape[1:3]
        resized = interpolate(self.map.unsqueeze(1), (height, width), mode="bilinear")
        return resized.squeeze(1).numpy()

    def title(self, index: int = 0) -> str:
        """Method, target and probability, such as "gradient rollout: dog (98%)"."""
        method = METHODS[self.method].title
        if self.labels is None or self.probability is None:
            return method
        return f"{method}: {self.labels[index]} ({as_percent(self.probability[index].item())})"

    def plot(self) -> "Figure":
        """Each image beside its overlay, with a colour bar: a matplotlib figure."""
        from rollout.plots import plot_explanation

        return plot_explanation(self)

    def save(self, path: str | Path) -> Path:
        """Write the figure of `plot` to a file, PNG or PDF by its name; returns the path."""
        with whole_file(path) as partial:
            self.plot().savefig(partial, dpi=150)
        return Path(path)


def as_percent(probability: float) -> str:
    """For people, such as 98%, 2.3% or <0.1%."""
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.0%}" if probability >= 0.1 else f"{probability:.1%}"


def explain(
    model: Model,
    image: ImageSource,
    *,
    method: str | None = None,
    target: Target = None,
    score: Score | None = None,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    end_block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    legacy: bool = False,
) -> Explanation:
    """Show what the model looked at in an image.

    Args:
        model: from `load_model` or `wrap_model`.
        image: a path or PIL image, a list of them, or a tensor (batch, channels, height, width)
            that is normalised as the network expects.
        method: one of METHODS; None is gradient rollout, or attention rollout for a network without
            a classifier.
        target: class index or label, or one per image; None takes the predicted class.
        score: what to follow instead of a class: a function of what the network returned, ->
            (batch,), such as the similarity of an image's features to those of a text.
        head_fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each block's lowest fused attention to leave out, in [0, 1).
        start_block, end_block: the blocks that count, as in a slice; None is the network's end.
        head: one head alone; None fuses all.
        query: the patch (row, column) whose tokens are traced back; None is what the classifier
            reads.
        legacy: the arithmetic of vit-explain as it was published, faults included.

    Raises:
        ValueError: a setting, image or target that makes no sense, named in the message.
    """
    if method is None:
        follows = bool(model.num_classes) or score is not None
        method = "gradient_rollout" if follows else "attention_rollout"
    check_method(method)
    settings = Settings(head_fusion, discard_ratio, start_block, end_block, head, query, legacy)
    images = model.images(image)
    chosen = _target(model, target, score, len(images))
    gradients = METHODS[method].gradients
    recording = record_model(model, images, gradients=gradients, keep_graph=False, score=score)
    if chosen is None and score is None:
        chosen = recording.predicted
    return Explanation.of(recording, method, chosen, settings)


def _target(model: Model, target: Target, score: Score | None, batch: int) -> Tensor | None:
    if target is None:
        return None
    if score is not None:
        raise ValueError(f"give a target or a score, not both; got target={target!r}")
    if not model.num_classes:
        raise ValueError(f"{model.name} has no classifier; got target={target!r}, give a score=")
    return model.class_indices(target, batch)
