"""What the notebooks share: their model and image, what they keep, and two common questions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from rollout.demo.class_means import with_class_means
from rollout.demo.samples import sample_path
from rollout.explanations.explanation import Explanation
from rollout.explanations.figure_file import Name, Shown, write_figure, write_overlay
from rollout.explanations.recording import Recording
from rollout.files import whole_file
from rollout.models.load import load_model
from rollout.models.model import Model, Target
from rollout.settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kept = TypeVar("Kept", "Figure", pd.DataFrame)


def open_subject(model_name: str, image_path: str, **given: Any) -> tuple[Model, Path]:
    """The model and the image of a notebook, from its parameters.

    A network without a classifier gets the nearest of the scenes' twelve class means as one, so
    that there are classes to explain; it is said where that happens.

    Args:
        model_name, given: for `load_model`; what is None is not passed.
        image_path: a sample's name or a file.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    model, image = load_model(model_name, **chosen), sample_path(image_path)
    if not model.num_classes:
        print(f"{model.name} has no classifier; here it names the nearest of twelve class means")
        model = with_class_means(model)
    return model, image


@dataclass(frozen=True)
class Keep:
    """Saves what a notebook makes, and gives it back, so that it can be a cell's last line.

    Attributes:
        folder: for pictures and tables; what README shows goes to its folder "readme".
    """

    folder: str | Path

    def __call__(self, made: Kept, name: str) -> Kept:
        """A figure as PNG, or a table as CSV, its index only where it says something."""
        with whole_file(self.path(name)) as partial:
            if isinstance(made, pd.DataFrame):
                made.to_csv(partial, index=not isinstance(made.index, pd.RangeIndex))
            else:
                made.savefig(partial, dpi=100)
        return made

    def path(self, name: str) -> Path:
        """Where a file of this name goes."""
        return Path(self.folder) / name

    def readme(self, name: str) -> Path:
        """Where a file goes that README shows."""
        return self.path("readme") / name

    def figure_for_readme(
        self, figure: "Figure", name: str, panels: Mapping[str, Shown], **source: Name
    ) -> "Figure":
        """A figure and, as JSON, the maps in it; arguments as for `figure_file.write_figure`."""
        write_figure(figure, self.readme(name), panels, **source)
        return figure

    def overlay_for_readme(self, explanation: Explanation, name: str, **source: str) -> None:
        """An overlay in the look of vit-explain and, as JSON, its map; see `write_overlay`."""
        write_overlay(explanation, self.readme(name), **source)


def relevance_by_start_block(
    recording: Recording, method: str, target: Target = None, settings: Settings = DEFAULTS
) -> dict[str, np.ndarray]:
    """The first image's map through the last block alone, then through one block more each time.

    Returns:
        "from block 6 up" and so on to (rows, columns) float32, unscaled; blocks count from 1.
    """
    starts = reversed(range(settings.start_block, len(recording.record.blocks)))
    return {
        f"from block {start + 1} up": recording.relevance(
            method, target, replace(settings, start_block=start)
        )[0].numpy()
        for start in starts
    }


def target_and_rival(
    recording: Recording, target: int | str | None = None, rival: int | str | None = None
) -> tuple[int, int]:
    """The class to explain in the first image and the one to compare it with, as indices.

    Args:
        target: class index or label; None is the predicted class.
        rival: the other class; None is the likeliest one that is not the target.

    Raises:
        ValueError: an unknown class, or a network with fewer than two classes.
    """
    model = recording.model
    if model.num_classes < 2:
        raise ValueError(
            f"two classes are compared here, and {model.name} has {model.num_classes}; take "
            "another model"
        )
    likely = recording.record.logits[0].argsort(descending=True).tolist()
    first = likely[0] if target is None else model.class_index(target)
    others = [index for index in likely if index != first]
    return first, others[0] if rival is None else model.class_index(rival)
