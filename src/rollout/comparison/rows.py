"""The rows of a comparison, and the maps that they speak of."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rollout.comparison.candidates import (
    ABSENT,
    BASELINE,
    CENTRE,
    EDGES,
    ORACLE,
    RANDOM,
    RIVAL,
    Candidate,
    centre_map,
    random_map,
    relevance,
)
from rollout.comparison.cases import Cases
from rollout.explanations.recording import Recording
from rollout.maths.perturbation import edge_strength
from rollout.models.model import Model

Key = tuple[str, str]  # method and setting
Maps = dict[Key, Tensor]  # (batch, rows, columns) each

COLUMNS = ("image", "target", "label", "method", "setting", "measure", "step", "value")


class Rows:
    """Rows as they come, a batch of images at a time."""

    def __init__(self, model: Model, cases: Cases) -> None:
        self.model, self.cases = model, cases
        self._parts: list[pd.DataFrame] = []

    def add(
        self, which: int, key: Key, measures: Mapping[str, Tensor], step: float = np.nan
    ) -> None:
        """Measures of one map of each image, (batch,) each; of the image's target `which`.

        Cases that an image does not have, and values that make no sense, are left out.
        """
        targets = self.cases.targets[which].tolist()
        for measure, values in measures.items():
            numbers = values.double().numpy()
            kept = self.cases.given[which].numpy() & np.isfinite(numbers)
            part = pd.DataFrame(
                {
                    "image": self.cases.names,
                    "target": targets,
                    "label": [self.model.label(target) for target in targets],
                    "method": key[0],
                    "setting": key[1],
                    "measure": measure,
                    "step": np.float32(step),
                    "value": numbers,
                }
            )
            self._parts.append(part[kept])

    def table(self) -> pd.DataFrame:
        parts = [part for part in self._parts if len(part)]
        if not parts:
            return pd.DataFrame({name: [] for name in COLUMNS})
        return pd.concat(parts, ignore_index=True)


def maps_of(
    recording: Recording,
    candidates: Sequence[Candidate],
    targets: Tensor,
    blind: Mapping[Candidate, Tensor] | None = None,
) -> Maps:
    """Each candidate's map of one target, (batch,); the forward pass is that of the recording.

    Args:
        blind: maps that do not depend on the target, made before.
    """
    made = blind or {}
    return {
        (one.method, one.setting): made[one] if one in made else relevance(recording, one, targets)
        for one in candidates
    }


def blind_maps(recording: Recording, candidates: Sequence[Candidate]) -> dict[Candidate, Tensor]:
    """The maps that are the same for all targets."""
    return {one: relevance(recording, one, None) for one in candidates if not one.gradients}


def all_maps(
    recording: Recording, candidates: Sequence[Candidate], cases: Cases, most: int | None = None
) -> list[Maps]:
    """For each target the maps of candidates and controls, from one pass over the images.

    Args:
        most: the first targets only.
    """
    blind, baseline = blind_maps(recording, candidates), Candidate(*BASELINE)
    found: list[Maps] = []
    for target in cases.targets[:most]:
        found.append(maps_of(recording, candidates, target, blind))
        recording.forget(0)
    grid_size = recording.layout.grid_size
    coverages = cases.coverages(grid_size, recording.layout.extent)
    absent = relevance(recording, baseline, cases.absent(recording.model.num_classes))
    recording.forget(0)
    baselines = [one[baseline.method, baseline.setting] for one in found]
    if len(found) == 1 < len(cases.targets):
        baselines.append(relevance(recording, baseline, cases.targets[1]))
        recording.forget(0)
    like = coverages[0]
    edges = edge_strength(recording.model.pictures(recording.images), grid_size)
    common = {RANDOM: random_map(like, cases.seeds), CENTRE: centre_map(like)}
    common |= {EDGES: edges, ABSENT: absent}
    for which, maps in enumerate(found):
        maps |= {(name, ""): made for name, made in common.items()}
        maps[ORACLE, ""] = coverages[which]
        if len(baselines) > 1:
            maps[RIVAL, ""] = _rivals_map(baselines, cases, which)
    return found


def _rivals_map(baselines: Sequence[Tensor], cases: Cases, which: int) -> Tensor:
    """The baseline's map of another target of the image; NaN where there is none."""
    rival = torch.full_like(baselines[0], torch.nan)
    for other, made in enumerate(baselines):
        real = cases.given[other] & (cases.targets[other] != cases.targets[which])
        rival = torch.where(real[:, None, None], made, rival)
    return rival
