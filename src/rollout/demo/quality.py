"""How good the demo model and its explanations are, on scenes it has never seen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import trange

from rollout.demo.samples import seen_coverage
from rollout.demo.scenes import Scene, SceneDataset
from rollout.explanations.recording import Recording, record_model
from rollout.maths.metrics import (
    average_precision,
    mean_average_precision,
    peak_on_object,
    target_share,
)
from rollout.models.model import Model
from rollout.settings import METHODS, Settings

UNSEEN_SEED = 20_000  # training counts its seeds from 0


def assess(
    model: Model,
    *,
    scenes: int = 500,
    batch_size: int = 50,
    method: str = "gradient_rollout",
    **settings: Any,
) -> dict[str, float]:
    """Measure on scenes of two objects, each of them the target once and the rival once.

    Args:
        model: one whose labels are the scenes' classes.
        scenes: how many, drawn from UNSEEN_SEED.
        settings: as for `explain`, such as discard_ratio=0.9.

    Returns:
        top_logit_present: share of scenes whose top logit names an object that is there;
        mean_average_precision: of each class's probability over the scenes, mean over the classes;
        peak_on_target: share of cases where the map's largest patch lies on the target;
        map_average_precision: of the map against the target's patches;
        target_share: the map's mass on the target against target and rival (0.5 is blind).
    """
    options = {"scenes": scenes, "batch_size": batch_size}
    return assess_methods(model, [method], **options, **settings)[method]


def assess_methods(
    model: Model,
    methods: Sequence[str],
    *,
    scenes: int = 500,
    batch_size: int = 50,
    **settings: Any,
) -> dict[str, dict[str, float]]:
    """`assess` by method: one forward pass and a backward pass for each target serve them all."""
    unseen, chosen = SceneDataset(UNSEEN_SEED, scenes, objects=2), Settings(**settings)
    gradients = any(METHODS[method].gradients for method in methods)
    probabilities, present = [], []
    cases: dict[str, list[Tensor]] = {method: [] for method in methods}
    for start in trange(0, scenes, batch_size, desc="quality", unit="batch"):
        numbers = range(start, min(start + batch_size, scenes))
        batch = [unseen.scene(number) for number in numbers]
        images = [Image.fromarray(scene.image) for scene in batch]
        recording = record_model(model, images, gradients=gradients)
        for method in methods:
            cases[method] += _cases(recording, batch, method, chosen)
        probabilities.append(model.probabilities(recording.record.logits).cpu())
        present.append(torch.stack([scene.labels for scene in batch]))
    ranked, truth = torch.cat(probabilities), torch.cat(present).bool()
    answers = {
        "scenes": scenes,
        "seed": UNSEEN_SEED,
        "top_logit_present": _mean(truth.gather(1, ranked.argmax(1, keepdim=True)).float()),
        "mean_average_precision": _mean(mean_average_precision(ranked, truth)),
    }
    return {method: answers | _of_maps(cases[method]) for method in methods}


def _of_maps(cases: Sequence[Tensor]) -> dict[str, float]:
    peak, precision, share = torch.cat(list(cases), dim=1).nanmean(dim=1).tolist()
    return {
        "peak_on_target": round(peak, 4),
        "map_average_precision": round(precision, 4),
        "target_share": round(share, 4),
    }


def class_maps_of(
    recording: Recording, batch: Sequence[Scene], maps: Mapping[str, tuple[str, Settings]]
) -> Iterator[tuple[tuple[Tensor, Tensor], dict[str, Tensor]]]:
    """With each scene's first object as the target, then with its second.

    Args:
        batch: scenes of two objects, as they were recorded.
        maps: name to method and settings.

    Yields:
        What target and rival cover of each patch, and the named maps: (batch, rows, columns) each.
    """
    coverages = [_coverage(recording, batch, which) for which in (0, 1)]
    for target, rival in ((0, 1), (1, 0)):
        names = [list(scene.masks)[target] for scene in batch]
        found = {
            name: recording.relevance(method, names, settings)
            for name, (method, settings) in maps.items()
        }
        yield (coverages[target], coverages[rival]), found


def _cases(
    recording: Recording, batch: Sequence[Scene], method: str, settings: Settings
) -> Iterator[Tensor]:
    """(3, batch) for each object as the target."""
    for coverages, maps in class_maps_of(recording, batch, {method: (method, settings)}):
        yield measure_case(maps[method], *coverages)


def _coverage(recording: Recording, batch: Sequence[Scene], which: int) -> Tensor:
    """Patch coverage of each scene's first or second object: (batch, rows, columns)."""
    masks = [list(scene.masks.values())[which] for scene in batch]
    return seen_coverage(recording.model, masks, recording.layout)


def measure_case(saliency_map: Tensor, target: Tensor, rival: Tensor) -> Tensor:
    """Peak, average precision and share of each image: (3, batch)."""
    return torch.stack(
        [
            peak_on_object(saliency_map, target).float(),
            average_precision(saliency_map, target),
            target_share(saliency_map, target, rival),
        ]
    )


def _mean(values: Tensor) -> float:
    return round(values.mean().item(), 4)
