"""How good the demo model and its explanations are, on scenes it has never seen."""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import trange

from rollout.demo.scenes import CLASSES, Scene, SceneDataset
from rollout.explanations.explanation import explain
from rollout.maths.metrics import (
    average_precision,
    patch_coverage,
    peak_on_object,
    ranking_precision,
    target_share,
)
from rollout.models.model import Model

UNSEEN_SEED = 20_000  # training counts its seeds from 0


def assess(
    model: Model, *, scenes: int = 500, batch_size: int = 50, **settings: Any
) -> dict[str, float]:
    """Measure on scenes of two objects, each of them the target once and the rival once.

    Args:
        model: one whose labels are the scenes' classes.
        scenes: how many, drawn from UNSEEN_SEED.
        settings: for `explain`, such as method="attention_rollout".

    Returns:
        top_logit_present: share of scenes whose top logit names an object that is there;
        mean_average_precision: of each class's probability over the scenes, mean over the classes;
        peak_on_target: share of cases where the map's largest patch lies on the target;
        map_average_precision: of the map against the target's patches;
        target_share: the map's mass on the target against target and rival (0.5 is blind).
    """
    unseen = SceneDataset(UNSEEN_SEED, scenes, objects=2)
    probabilities, present, cases = [], [], []
    for start in trange(0, scenes, batch_size, desc="quality", unit="batch"):
        numbers = range(start, min(start + batch_size, scenes))
        batch = [unseen.scene(number) for number in numbers]
        images = model.images([Image.fromarray(scene.image) for scene in batch])
        present.append(torch.stack([scene.labels for scene in batch]))
        for target, rival in ((0, 1), (1, 0)):
            names = [list(scene.masks)[target] for scene in batch]
            explanation = explain(model, images, target=names, **settings)
            grid_size = model.layout.grid_size
            on_target, on_rival = (_coverage(batch, which, grid_size) for which in (target, rival))
            cases.append(_case(explanation.map, on_target, on_rival))
        probabilities.append(model.probabilities(explanation.logits))
    ranked, truth = torch.cat(probabilities), torch.cat(present).bool()
    peak, precision, share = torch.cat(cases, dim=1).nanmean(dim=1).tolist()
    return {
        "scenes": scenes,
        "seed": UNSEEN_SEED,
        "top_logit_present": _mean(truth.gather(1, ranked.argmax(1, keepdim=True)).float()),
        "mean_average_precision": _mean(torch.stack(list(_class_precisions(ranked, truth)))),
        "peak_on_target": round(peak, 4),
        "map_average_precision": round(precision, 4),
        "target_share": round(share, 4),
    }


def _coverage(batch: list[Scene], which: int, grid_size: tuple[int, int]) -> Tensor:
    """Patch coverage of each scene's first or second object: (batch, rows, columns)."""
    masks = [torch.from_numpy(list(scene.masks.values())[which]) for scene in batch]
    return patch_coverage(torch.stack(masks), grid_size)


def _case(saliency_map: Tensor, target: Tensor, rival: Tensor) -> Tensor:
    """Peak, average precision and share of each image: (3, batch)."""
    return torch.stack(
        [
            peak_on_object(saliency_map, target).float(),
            average_precision(saliency_map, target),
            target_share(saliency_map, target, rival),
        ]
    )


def _class_precisions(probabilities: Tensor, truth: Tensor) -> Iterator[Tensor]:
    for index in range(len(CLASSES)):
        if truth[:, index].any():
            yield ranking_precision(probabilities[:, index], truth[:, index])


def _mean(values: Tensor) -> float:
    return round(values.mean().item(), 4)
