"""Sweeps of the sample scenes, whose objects' places are known: what a setting is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rollout.demo.samples import answer_key, load_masks, object_coverage, sample_path, scene_names
from rollout.explanations.recording import Recording, record_model
from rollout.explanations.sweep import sweep
from rollout.maths.metrics import mass_on_object, match_entropy
from rollout.models.model import Model


def record_scenes(
    model: Model, scenes: Sequence[str] | None = None, *, gradients: bool = True
) -> dict[str, Recording]:
    """Recordings of samples by their names, for several sweeps of the same scenes.

    Args:
        scenes: names of samples, or files; None is every scene that has masks.
        gradients: as for `record_model`.
    """
    names = scene_names() if scenes is None else scenes
    return {scene: record_model(model, sample_path(scene), gradients=gradients) for scene in names}


def sweep_scenes(
    model: Model, scenes: Sequence[str] | Mapping[str, Recording] | None = None, **axes: Any
) -> pd.DataFrame:
    """The sweeps of several scenes, one below the other; each object is the target once.

    A model that knows none of a scene's classes explains what it predicts, and the target's place
    is that of all objects.

    Args:
        scenes: names of samples that have masks, or what `record_scenes` made of them; None is
            every sample that has.
        axes: arguments for `sweep`, without targets and coverage.

    Returns:
        The columns of `sweep` and scene, area (the share of the image that the target covers, which
        is the target_mass of a map that knows nothing) and contrast_mass: the target_mass of the
        map of ratio 0 with its contrast raised until it has the entropy of this row's map. What a
        map has more than that, it owes to something else than contrast.
    """
    tables = []
    for scene in scene_names() if scenes is None else scenes:
        given = scenes[scene] if isinstance(scenes, Mapping) else None
        recording = record_model(model, sample_path(scene)) if given is None else given
        tables.append(_sweep_scene(recording, scene, axes))
    return pd.concat(tables, ignore_index=True)


def _sweep_scene(recording: Recording, scene: str, axes: Mapping[str, Any]) -> pd.DataFrame:
    model, targets, key = recording.model, *_targets(recording, scene)
    table = sweep(model, recording, targets=targets, coverage=key, **axes)
    whole = table[table["discard_ratio"] == 0]
    if whole.empty:
        whole = sweep(model, recording, targets=targets, **{**axes, "discard_ratios": [0.0]})
    return table.assign(
        scene=scene,
        area=table["label"].map({label: mask.mean().item() for label, mask in key.items()}),
        contrast_mass=_contrast_mass(table, whole, key).numpy(),
    )


def _targets(recording: Recording, scene: str) -> tuple[list[int], dict[str, Tensor]]:
    """Class indices, and the name of each to the share of each patch that it covers.

    A name alone would not do: two classes of ImageNet are called "crane".
    """
    model, layout = recording.model, recording.layout
    if recording.predicted is None:
        raise ValueError(f"{model.name} has no classifier, so a scene's objects are no targets")
    if not load_masks(scene):
        raise ValueError(f"{scene} has no masks to hold a map against; give scenes that have")
    key, labels = answer_key(model, scene, layout), model.labels or ()
    known = {label: mask for label, mask in key.items() if label in labels}
    if known:
        return [labels.index(label) for label in known], known
    predicted = int(recording.predicted)
    return [predicted], {model.label(predicted): object_coverage(model, scene, layout)}


def _contrast_mass(table: pd.DataFrame, whole: pd.DataFrame, key: Mapping[str, Tensor]) -> Tensor:
    """The column contrast_mass; `whole` has the rows of ratio 0."""
    case = ["method", "head_fusion", "start_block", "label"]
    maps = whole.set_index(case)["relevance"].loc[list(table[case].itertuples(index=False))]
    entropy = torch.from_numpy(table["entropy"].to_numpy(copy=True))
    coverage = torch.cat([key[label] for label in table["label"]])
    return mass_on_object(match_entropy(torch.from_numpy(np.stack(maps)), entropy), coverage)
