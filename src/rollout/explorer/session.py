"""One image that went through a model once, and all that the explorer says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rollout.explanations.kept_maps import KeptMaps
from rollout.explanations.targets import Chosen
from rollout.explorer.view import indices
from rollout.maths.metrics import mass_on_object
from rollout.models.model import Model
from rollout.names import one_line
from rollout.settings import METHODS, Settings


@dataclass
class Session(KeptMaps):
    """What the explorer knows of one model and one image.

    Attributes:
        coverage: the answer key: label to the share of each patch, (rows, columns); {} without one.
        source: the names of model and image, where it has any.
        beside: the recording of the view that is compared with; None where it is this one, too.
        shown_ratios: the discard ratios that were asked for.
    """

    coverage: Mapping[str, Tensor] = field(default_factory=dict)
    source: tuple[str, str] | None = None
    beside: "Session | None" = field(default=None, init=False, repr=False, compare=False)
    _picture: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)
    shown_ratios: set[float] = field(default_factory=set, init=False)

    def relevance(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        self.shown_ratios.add(settings.discard_ratio)
        return super().relevance(method, target, settings)

    @property
    def model(self) -> Model:
        return self.recording.model

    @property
    def logits(self) -> np.ndarray:
        """(classes,); empty for a network without a classifier."""
        classes = self.model.num_classes
        return self.recording.record.logits[0, :classes].float().cpu().numpy()

    @property
    def predicted(self) -> int | None:
        """The class of the highest logit; None without a classifier, or where a score is given."""
        predicted = self.recording.predicted
        return None if predicted is None or self.recording.score is not None else int(predicted)

    @property
    def follows(self) -> bool:
        """Whether there is something to follow back: a class, or the score that was given."""
        return bool(self.model.num_classes) or self.recording.score is not None

    @property
    def methods(self) -> list[str]:
        """Those that make sense here."""
        return [name for name, one in METHODS.items() if self.follows or not one.gradients]

    @property
    def probabilities(self) -> np.ndarray:
        """(classes,); NaN where the network's outputs are no probabilities."""
        if not self.model.num_classes:
            return np.zeros(0, np.float32)
        return self.model.probabilities(self.recording.record.logits)[0].cpu().numpy()

    def label(self, target: Chosen | None) -> str:
        """A class's; those of a set with a plus between them."""
        return " + ".join(self.model.label(index) for index in indices(target))

    def short_label(self, target: Chosen | None) -> str:
        """The first of the synonyms that ImageNet's labels list, for titles."""
        labels = (self.model.label(index).split(",")[0] for index in indices(target))
        return one_line(" + ".join(labels))

    def picture(self) -> np.ndarray:
        """The image as the network saw it, (height, width, 3) in [0, 1]."""
        if self._picture is None:
            self._picture = self.model.pictures(self.recording.images)[0].numpy()
        return self._picture

    def shares(self, relevance: np.ndarray) -> dict[str, tuple[float, float]]:
        """Of each object in the answer key: its share of the map's mass, and of the image."""
        mass = torch.from_numpy(relevance)[None]
        return {
            label: (mass_on_object(mass, covered[None]).item(), covered.mean().item())
            for label, covered in self.coverage.items()
        }
