"""What if an object were not there: maps against scenes that are drawn again without it."""

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from rollout.capture.kept_tokens import answer
from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.comparison.rows import Rows, all_maps
from rollout.explanations.recording import record_prepared
from rollout.maths.objects import (
    deletion_check,
    drop_correlation,
    irrelevant_mass,
    irrelevant_objects,
    object_shares,
    preservation_check,
)
from rollout.models.model import Model

CORRELATION, DELETION_CHECK = "drop correlation", "deletion check"
PRESERVATION_CHECK, IRRELEVANT = "preservation check", "mass on irrelevant objects"
TARGETS = 2  # of each scene's objects: the first ones, whose classes are drawn at random


class Removals:
    """The logits of a scene without some of its objects, each set of objects drawn once."""

    def __init__(self, model: Model, plan: Plan, number: int) -> None:
        self.model, self.dataset, self.number = model, plan.crowd.dataset, number
        self.labels = list(self.dataset.scene(number).masks)
        self._known: dict[tuple[int, ...], Tensor] = {}

    def logits(self, sets: Sequence[tuple[int, ...]]) -> Tensor:
        """(sets, classes); each set has the numbers of the objects that are left out."""
        new = [one for one in dict.fromkeys(sets) if one not in self._known]
        if new:
            scenes = [
                self.dataset.scene(self.number, without=[self.labels[place] for place in one])
                for one in new
            ]
            images = self.model.images([Image.fromarray(scene.image) for scene in scenes])
            self._known |= dict(zip(new, answer(self.model.network, images).cpu(), strict=True))
        return torch.stack([self._known[one] for one in sets])


def measure_what_if(model: Model, plan: Plan, cases: Cases, numbers: Sequence[int]) -> Rows:
    """Rows of the first targets of each scene and all maps.

    Args:
        numbers: of the scenes in `plan.crowd`, as `cases` has them.
    """
    recording = record_prepared(model, cases.images)
    found, rows = all_maps(recording, plan.candidates, cases, most=TARGETS), Rows(model, cases)
    coverages = cases.coverages(recording.layout.grid_size, recording.layout.extent)
    removals = [Removals(model, plan, number) for number in numbers]
    for which, maps in enumerate(found):
        shares = {
            key: [_shares(one, coverages, cases, place) for place, one in enumerate(made)]
            for key, made in maps.items()
        }
        drops = []
        for place, removal in enumerate(removals):
            irrelevant = [irrelevant_objects(one[place]) for one in shares.values()]
            drops.append(_Drops(removal, int(cases.targets[which, place]), irrelevant))
        for key, of_images in shares.items():
            checked = [one.check(own) for one, own in zip(drops, of_images, strict=True)]
            rows.add(which, key, {name: _column(checked, name) for name in checked[0]})
    return rows


def _shares(saliency_map: Tensor, coverages: Tensor, cases: Cases, place: int) -> Tensor:
    return object_shares(saliency_map, coverages[cases.given[:, place], place])


def _column(checked: Sequence[dict[str, float]], name: str) -> Tensor:
    return torch.tensor([one[name] for one in checked], dtype=torch.float64)


class _Drops:
    """By how much one target's logit falls without each object, and without several."""

    def __init__(self, removal: Removals, target: int, several: Sequence[tuple[int, ...]]) -> None:
        alone = [(place,) for place in range(len(removal.labels))]
        logits = removal.logits([(), *alone, *several])[:, target].double()
        falls = logits[0] - logits[1:]
        self.alone = falls[: len(alone)]
        self._together = dict(zip(several, falls[len(alone) :].tolist(), strict=True))

    def check(self, shares: Tensor) -> dict[str, float]:
        if not shares.isfinite().all():
            return dict.fromkeys(
                (CORRELATION, DELETION_CHECK, PRESERVATION_CHECK, IRRELEVANT), math.nan
            )
        together = self._together[irrelevant_objects(shares)]
        return {
            CORRELATION: drop_correlation(shares, self.alone),
            DELETION_CHECK: deletion_check(shares, self.alone),
            PRESERVATION_CHECK: preservation_check(together, self.alone),
            IRRELEVANT: irrelevant_mass(shares, self.alone),
        }
