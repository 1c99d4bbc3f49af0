"""Where a map lies: on its target, on a rival, and whether another target gives another map."""

import torch
from torch import Tensor

from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.comparison.rows import Key, Maps, Rows, all_maps
from rollout.explanations.recording import record_prepared
from rollout.maths.metrics import (
    average_precision,
    mass_on_object,
    peak_on_object,
    rank_correlation,
    relative_entropy,
    target_share,
)
from rollout.models.model import Model

PEAK, PRECISION, MASS = "peak", "average precision", "mass on target"
AGAINST, ALIKE, SPREAD = "target against rival", "two targets alike", "entropy"


def measure_where(model: Model, plan: Plan, cases: Cases) -> Rows:
    """Rows of each target and map."""
    recording = record_prepared(model, cases.images)
    found, rows = all_maps(recording, plan.candidates, cases), Rows(model, cases)
    coverages = cases.coverages(recording.layout.grid_size, recording.layout.extent)
    for which, maps in enumerate(found):
        rival = cases.rivals(coverages, which)
        for key, made in maps.items():
            measured = _on_target(made, coverages[which], rival)
            rows.add(which, key, measured | _alike(found, key, which))
    return rows


def _on_target(made: Tensor, target: Tensor, rival: Tensor) -> dict[str, Tensor]:
    known = made.isfinite().all(dim=(1, 2))
    has_rival = known & (rival.sum(dim=(1, 2)) > 0)
    measured = {
        PEAK: peak_on_object(made, target).double(),
        PRECISION: average_precision(made, target),
        MASS: mass_on_object(made, target),
        SPREAD: relative_entropy(made),
    }
    measured = {name: values.where(known, torch.nan) for name, values in measured.items()}
    share = target_share(made, target, rival)
    return measured | {AGAINST: share.where(has_rival, torch.nan)}


def _alike(found: list[Maps], key: Key, which: int) -> dict[str, Tensor]:
    """The rank correlation with the next target's map; controls have none but chance."""
    if len(found) < 2 or key[0].startswith("control"):
        return {}
    other = found[(which + 1) % len(found)][key]
    return {ALIKE: rank_correlation(found[which][key], other)}
