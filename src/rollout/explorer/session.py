"""One image that went through a model once, and all that the explorer says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rollout.explanations.kept_maps import KeptMaps
from rollout.maths.metrics import mass_on_object
from rollout.models.model import Model
from rollout.names import one_line


@dataclass
class Session(KeptMaps):
    """What the explorer knows of one model and one image.

    Attributes:
        coverage: the answer key: label to the share of each patch, (rows, columns); {} without one.
    """

    coverage: Mapping[str, Tensor] = field(default_factory=dict)

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
        """The class of the highest logit; None without a classifier."""
        predicted = self.recording.predicted
        return None if predicted is None else int(predicted)

    @property
    def probabilities(self) -> np.ndarray:
        """(classes,); NaN where the network's outputs are no probabilities."""
        if not self.model.num_classes:
            return np.zeros(0, np.float32)
        return self.model.probabilities(self.recording.record.logits)[0].cpu().numpy()

    def label(self, target: int | None) -> str:
        return "" if target is None else self.model.label(target)

    def short_label(self, target: int | None) -> str:
        """The first of the synonyms that ImageNet's labels list, for titles."""
        return one_line(self.label(target).split(",")[0])

    def picture(self) -> np.ndarray:
        """The image as the network saw it, (height, width, 3) in [0, 1]."""
        return self.model.pictures(self.recording.images)[0].numpy()

    def shares(self, relevance: np.ndarray) -> dict[str, tuple[float, float]]:
        """Of each object in the answer key: its share of the map's mass, and of the image."""
        mass = torch.from_numpy(relevance)[None]
        return {
            label: (mass_on_object(mass, covered[None]).item(), covered.mean().item())
            for label, covered in self.coverage.items()
        }
