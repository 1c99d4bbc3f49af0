"""From a model and an image to an explanation: the one place where all parts meet."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import interpolate

from rollout.capture.attention_record import Score
from rollout.explanations.dominance import dominances
from rollout.explanations.recording import Recording, find_targets, record_model
from rollout.files import whole_file
from rollout.maths.dominance import Dominance, Scale
from rollout.models.model import ImageSource, Model, Target
from rollout.plots.figure import jet_overlay, new_figure, save_picture
from rollout.plots.maps import plot_overlay, plot_picture
from rollout.plots.marks import write_below
from rollout.settings import DEFAULTS, METHODS, HeadFusion, Settings, check_method

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray


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
        dominance: for each map the patch that stands far above all others; None where none does.
    """

    map: Tensor
    method: str
    settings: Settings
    target: tuple[int, ...] | None
    probability: Tensor | None
    labels: tuple[str, ...] | None
    logits: Tensor
    pictures: Tensor
    dominance: tuple[Dominance | None, ...] = ()

    @classmethod
    def of(
        cls,
        recording: Recording,
        method: str,
        target: Target = None,
        settings: Settings = DEFAULTS,
    ) -> "Explanation":
        """What `explain` returns, from images that were recorded before."""
        model, logits = recording.model, recording.record.logits
        chosen = recording.target_indices(target)
        indices = None if chosen is None else tuple(chosen.tolist())
        probability = None
        if chosen is not None:
            probability = model.probabilities(logits).gather(1, chosen[:, None])[:, 0].cpu()
        maps = recording.relevance(method, chosen, settings)
        return cls(
            map=maps,
            method=method,
            settings=settings,
            target=indices,
            probability=probability,
            labels=None if indices is None else tuple(model.label(index) for index in indices),
            logits=logits.float().cpu(),
            pictures=model.pictures(recording.images),
            dominance=dominances(
                recording,
                maps,
                method,
                settings,
                lambda other: recording.relevance(method, chosen, other),
            ),
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

    def dominated(self, index: int = 0) -> str:
        """A sentence where one patch dominates a map; "" where none does.

        Such as "row 2, column 8 holds 10% of the map, 33 times the median; it enters in block 1:
        try start_block=1". Rows and columns count from 0 as in `query`, blocks from 1. The rule is
        that of `maths.dominance`; the cure is named where it halves the largest share.
        """
        found = self.dominance[index] if self.dominance else None
        return "" if found is None else str(found)

    def plot(self, *, scale: Scale = "auto") -> "Figure":
        """Each image beside its overlay, with a colour bar: a matplotlib figure.

        Args:
            scale: "max" ends the colours at the largest value; "auto" too, unless one patch stands
                far above all others: that is then outlined, and the rest is seen.
        """
        batch = len(self.map)
        figure, axes = new_figure(batch, 2, width=7.2, height=3.3 * batch)
        for index, (left, right) in enumerate(axes):
            picture = self.pictures[index].numpy()
            plot_picture(picture, ax=left, title="image")
            plot_overlay(
                picture,
                self.map[index].numpy(),
                ax=right,
                title=self.title(index),
                unit=METHODS[self.method].unit,
                scale=scale,
            )
            write_below(right, fill(self.dominated(index), 46))
        return figure

    def save(self, path: str | Path, *, scale: Scale = "auto") -> Path:
        """Write the figure of `plot` to a file, PNG or PDF by its name; returns the path."""
        with whole_file(path) as partial:
            self.plot(scale=scale).savefig(partial, dpi=150)
        return Path(path)

    def save_overlay(self, path: str | Path, *, index: int = 0) -> Path:
        """Write one image's map in the look of vit-explain, as large as the network saw it."""
        picture = self.pictures[index].numpy()
        return save_picture(jet_overlay(picture, self.saliency_map()[index]), path)


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
    chosen = find_targets(model, target, score, len(images))  # before anything is computed
    gradients = METHODS[method].gradients
    recording = record_model(model, images, gradients=gradients, keep_graph=False, score=score)
    return Explanation.of(recording, method, chosen, settings)
