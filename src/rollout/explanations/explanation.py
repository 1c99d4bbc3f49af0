"""What `explain` returns: maps, with everything that made them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rollout.explanations.dominance import dominances
from rollout.explanations.recording import Recording
from rollout.explanations.targets import Chosen, chosen_classes
from rollout.files import whole_file, with_suffix
from rollout.maths.boxes import Box, draw_mask, find_boxes, outstanding
from rollout.maths.checks import check_index, check_size
from rollout.maths.dominance import Dominance
from rollout.maths.placement import stretch
from rollout.maths.scales import Scale
from rollout.maths.token_layout import Extent
from rollout.models.model import Target
from rollout.models.outputs import as_percent, as_text, of_any
from rollout.names import one_line
from rollout.plots.figure import jet_overlay, new_figure, save_picture
from rollout.plots.maps import plot_overlay, plot_picture
from rollout.plots.marks import write_below
from rollout.settings import (
    DEFAULTS,
    METHODS,
    Settings,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray


PER_IMAGE = (
    *("map", "target", "probability", "labels", "logits", "pictures", "dominance", "hidden"),
)

MUCH_HIDDEN = 1 / 3  # of an image: whoever looks at the map should know


@dataclass(frozen=True)
class Explanation:
    """A map for each image of a batch, with everything that made it.

    Attributes:
        map: relevance of each patch, (batch, rows, columns), float32, non-negative, unscaled.
        method, settings: what was computed, and with which knobs.
        target: the class explained, one index per image, or the set of classes; for methods that
            are blind to the class, the class that the picture's title speaks of. None where a score
            was explained, or the network has no classifier.
        probability: the model's probability of each target, (batch,), NaN where there is none: of a
            value, or of several classes that can go together; None without a target.
        labels: the name of each target, such as "dog" or "tabby or tiger cat"; None without one.
        logits: the network's output, (batch, classes); its features where it has no classifier.
        pictures: the images as the network saw them, (batch, height, width, 3) in [0, 1].
        dominance: for each map the patch that stands far above all others; None where none does.
        extent: the pixels of a picture that the map covers (top, left, bottom, right), where that
            is not all of it: the grid may leave a margin out, or reach into padding.
        hidden: the share of each image that the transform's crop left out of its picture.
    """

    map: Tensor
    method: str
    settings: Settings
    target: tuple[Chosen, ...] | None
    probability: Tensor | None
    labels: tuple[str, ...] | None
    logits: Tensor
    pictures: Tensor
    dominance: tuple[Dominance | None, ...] = ()
    extent: Extent | None = None
    hidden: tuple[float, ...] = ()

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
        indices = None if chosen is None else chosen_classes(chosen)
        probability = None
        if chosen is not None:
            each = model.probabilities(logits)
            mask = _as_mask(chosen, each.shape[1])
            probability = of_any(mask, each, model.outputs).cpu()
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
            extent=recording.layout.extent,
        )

    @classmethod
    def joined(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """One explanation of the images of several, in their order; all else is the first one's."""
        first = parts[0]
        joined: dict[str, Any] = {}
        for name in PER_IMAGE:
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], Tensor):
                joined[name] = torch.cat(values)
            elif values[0] is not None:
                joined[name] = tuple(chain.from_iterable(values))
        return replace(first, **joined)

    def __repr__(self) -> str:
        titles = ", ".join(self.title(index) for index in range(len(self.map)))
        return f"Explanation({titles}; map (batch, rows, columns) = {tuple(self.map.shape)})"

    def saliency_map(self, size: tuple[int, int] | None = None) -> "ndarray":
        """The maps at `size`, by default the image's, unscaled: (batch, height, width).

        Every patch lies on the pixels that it was cut from; what no patch covers is 0.
        """
        height, width = self.pictures.shape[1:3]
        if size is None:
            size = height, width
        size = check_size("size", size)
        return stretch(self.map, size, self.extent, (height, width)).numpy()

    def mask(self, threshold: float = 0.0) -> "ndarray":
        """The patches above the map's mean plus `threshold` standard deviations, drawn whole.

        Returns:
            (batch, height, width) of bool, as large as the network saw the images.
        """
        height, width = self.pictures.shape[1:3]
        mask = outstanding(self.map, threshold)
        return draw_mask(mask, (height, width), self.extent).numpy()

    def boxes(self, threshold: float = 0.0) -> list[list[Box]]:
        """For each image a box around each connected piece of `mask`, the weightiest first.

        Their pixels are those of the image as the network saw it.
        """
        height, width = self.pictures.shape[1:3]
        return find_boxes(self.map, (height, width), threshold, self.extent)

    def title(self, index: int = 0) -> str:
        """Method, target and probability, such as "gradient rollout: dog (98%)", or "gradient
        rollout, libra: dog (98%)" with this backward pass.

        The value, such as (0.58), where there is no probability; and a word where no patch speaks
        for the target.
        """
        check_index("index", index, len(self.map))
        title = titled(self.method, self.settings)
        if self.labels is not None and self.target is not None:
            title += f": {one_line(self.labels[index])}{self._answer(index)}"
        if self.speaks_for_nothing(index):
            title += ", for which no patch speaks"
        return title

    def _answer(self, index: int) -> str:
        """Such as " (98%)"; "" for several classes whose probability is not known."""
        assert self.target is not None and self.probability is not None
        probability, target = self.probability[index].item(), self.target[index]
        if isinstance(target, int):
            return f" ({as_text(probability, self.logits[index, target].item())})"
        return "" if math.isnan(probability) else f" ({as_percent(probability)})"

    def speaks_for_nothing(self, index: int = 0) -> bool:
        """Whether a map that depends on the target is the same everywhere: 0, or what the
        classifier reads of each patch. Gradients arrived, and none was in favour of the target."""
        check_index("index", index, len(self.map))
        own = self.map[index]
        alike = own.numel() > 1 and self.settings.query is None and own.min() == own.max()
        return bool(METHODS[self.method].gradients and alike)

    def note(self, index: int = 0) -> str:
        """Such as " (the crop hides 43% of it)", where that is more than a third; else nothing."""
        check_index("index", index, len(self.map))
        hidden = self.hidden[index] if self.hidden else 0.0
        return f" (the crop hides {as_percent(hidden)} of it)" if hidden > MUCH_HIDDEN else ""

    def dominated(self, index: int = 0) -> str:
        """A sentence where one patch dominates a map; "" where none does.

        Such as "row 2, column 8 holds 10% of the map, 33 times the median; it enters in block 1:
        try start_block=1". Rows and columns count from 0 as in `query`, blocks from 1. The rule is
        that of `maths.dominance`; the cure is named where it halves the largest share.
        """
        check_index("index", index, len(self.map))
        found = self.dominance[index] if self.dominance else None
        return "" if found is None else str(found)

    def plot(self, *, scale: Scale = "auto") -> "Figure":
        """Each image beside its overlay, with a colour bar: a matplotlib figure.

        Args:
            scale: "max" ends the colours at the largest value; "auto" too, unless one patch stands
                far above all others: that is then outlined, and the rest is seen. "percentile"
                ends them at the 99th, "log" makes each colour stand for a factor.
        """
        batch = len(self.map)
        figure, axes = new_figure(batch, 2, width=7.2, height=3.3 * batch)
        for index, (left, right) in enumerate(axes):
            picture = self.pictures[index].numpy()
            plot_picture(picture, ax=left, title="image" + self.note(index))
            plot_overlay(
                picture,
                self.map[index].numpy(),
                ax=right,
                title=self.title(index),
                unit=METHODS[self.method].unit,
                scale=scale,
                extent=self.extent,
            )
            write_below(right, fill(self.dominated(index), 46))
        return figure

    def save(self, path: str | Path, *, scale: Scale = "auto") -> Path:
        """Write the figure of `plot` to a file, PNG or PDF by its name; PNG where it says neither.

        Returns:
            The path, with .png where the name has no ending.
        """
        path = with_suffix(path)
        with whole_file(path) as partial:
            self.plot(scale=scale).savefig(partial, dpi=150)
        return path

    def save_overlay(self, path: str | Path, *, index: int = 0) -> Path:
        """Write one image's map in the look of vit-explain, as large as the network saw it."""
        check_index("index", index, len(self.map))
        picture = self.pictures[index].numpy()
        return save_picture(jet_overlay(picture, self.saliency_map()[index]), path)


def _as_mask(chosen: Tensor, classes: int) -> Tensor:
    """Class indices (batch,), or a mask already, as a mask (batch, classes)."""
    return chosen if chosen.dim() == 2 else one_hot(chosen, classes).bool()
