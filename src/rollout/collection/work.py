"""One shard: images are opened, go through the network in batches, and become rows of the table."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from rollout.collection.opening import REFUSED, Opened, known, numbers, open_batches, sentence
from rollout.collection.table import as_table, in_order, measure
from rollout.collection.task import GIVEN, PREDICTED, Shard, Task
from rollout.explanations.recording import Recording, record_prepared
from rollout.maths.placement import coverage_of, stretch
from rollout.maths.token_layout import TokenLayout
from rollout.models.model import Model
from rollout.settings import Settings

# (name of a file, image as the network saw it (height, width, 3) in [0, 1], map at that size)
Paint = Callable[[str, Tensor, Tensor], None]


def explain_shard(
    model: Model, shard: Shard, task: Task, readers: int = 1, paint: Paint | None = None
) -> pa.Table:
    """The rows of all images of a shard, in their order; a broken one has a row with its error.

    Args:
        readers: threads that open the next images while the network sees those before.
        paint: is given each map with its image.
    """
    tables: list[pa.Table] = []
    for opened in open_batches(model, shard, task.batch, readers):
        good = [one for one in opened if isinstance(one, Opened)]
        tables += [error_rows([one]) for one in opened if isinstance(one, dict)]
        tables += explain_batch(model, good, task, paint) if good else []
    return in_order(tables)


def error_rows(facts: Sequence[dict[str, Any]]) -> pa.Table:
    """A row for each image that has no map."""
    names = {name for one in facts for name in one}
    return as_table({name: [one.get(name) for one in facts] for name in names})


def lost_shard(shard: Shard, reason: str) -> pa.Table:
    """The rows of a shard that cannot be done."""
    return error_rows([known(shard, number) | {"error": reason} for number in numbers(shard)])


def explain_batch(
    model: Model, opened: Sequence[Opened], task: Task, paint: Paint | None = None
) -> list[pa.Table]:
    """Tables of rows. If a batch does not go, its halves are tried, down to the single image."""
    try:
        return explain_together(model, opened, task, paint)
    except REFUSED as error:
        if len(opened) == 1:
            return [error_rows([opened[0].facts | {"error": sentence(error)}])]
    # Out of the handler, where the error would hold the batch's tensors: memory may be short.
    half = len(opened) // 2
    parts = opened[:half], opened[half:]
    return [table for part in parts for table in explain_batch(model, part, task, paint)]


def explain_together(
    model: Model, opened: Sequence[Opened], task: Task, paint: Paint | None = None
) -> list[pa.Table]:
    """One forward pass for all maps of these images; tables of rows.

    Raises:
        ValueError, RuntimeError: an image or a setting that does not go.
    """
    images = torch.stack([one.tensor for one in opened]).to(model.device, model.dtype)
    several = sum(len(task.targets_of(method)) for method in task.methods) > 1
    recording = record_prepared(
        model,
        images,
        gradients=task.gradients,
        keep_graph=several,
        backward=task.knobs.backward,
    )
    tables = []
    for method in task.methods:
        for target in task.targets_of(method):
            chosen = _chosen(recording, opened, target)
            maps = recording.relevances(
                method, chosen, task.knobs, task.head_fusions, task.discard_ratios
            )  # (fusions, ratios, batch, rows, columns)
            recording.forget(0)
            rows = _rows(recording, opened, task, method, chosen, maps.flatten(0, 1))
            tables.append(as_table(rows))
            if paint is not None:
                _paint(recording, rows, maps.flatten(0, 2), paint)
    return tables


def _paint(
    recording: Recording, rows: Mapping[str, Sequence[Any]], maps: Tensor, paint: Paint
) -> None:
    pictures = recording.model.pictures(recording.images)
    names = ("image", "method", "label", "discard_ratio", "head_fusion")
    said = zip(*(rows.get(name, [None] * len(maps)) for name in names), strict=True)
    for place, (image, method, label, ratio, fusion) in enumerate(said):
        of = re.sub(r"[^\w-]+", "-", label or "")[:40]
        name = f"{image:08d}_{method}_{of}_{ratio:.3f}_{fusion}.png"
        picture = pictures[place % len(pictures)]
        size = (picture.shape[0], picture.shape[1])
        extent = recording.layout.extent
        paint(name, picture, stretch(maps[place : place + 1], size, extent)[0])


def _chosen(recording: Recording, opened: Sequence[Opened], target: int | str) -> Tensor | None:
    """The class index of each image; None where there are no classes."""
    predicted = recording.predicted
    if predicted is None or target == PREDICTED:
        return predicted
    if target != GIVEN:
        return torch.full_like(predicted, int(target))
    given = [one.target for one in opened]
    pairs = zip(given, predicted.tolist(), strict=True)
    indices = [other if one is None else one for one, other in pairs]
    return torch.tensor(indices, device=predicted.device)


def _rows(
    recording: Recording,
    opened: Sequence[Opened],
    task: Task,
    method: str,
    chosen: Tensor | None,
    maps: Tensor,
) -> dict[str, list[Any]]:
    """Columns for the maps of one method and target, (fusions * ratios, batch, rows, columns)."""
    settings = [
        replace(task.knobs, head_fusion=head_fusion, discard_ratio=discard_ratio)
        for head_fusion in task.head_fusions
        for discard_ratio in task.discard_ratios
    ]
    height, width = recording.images.shape[-2:]
    coverage, extent = _coverage(opened, recording.layout), recording.layout.extent
    common = _common(recording, opened, chosen)
    columns: dict[str, list[Any]] = {}
    for knobs, some in zip(settings, maps, strict=True):
        own = common | _said(method, knobs, len(opened))
        own |= measure(some, (height, width), coverage, extent)
        for name, values in own.items():
            columns.setdefault(name, []).extend(values)
    return columns


def _said(method: str, knobs: Settings, batch: int) -> dict[str, list[Any]]:
    values = {
        "method": method,
        "head_fusion": knobs.head_fusion,
        "discard_ratio": knobs.discard_ratio,
    }
    return {name: [value] * batch for name, value in values.items()}


def _common(
    recording: Recording, opened: Sequence[Opened], chosen: Tensor | None
) -> dict[str, list[Any]]:
    facts = {name: [one.facts[name] for one in opened] for name in opened[0].facts}
    predicted = recording.predicted
    if chosen is None or predicted is None:
        return facts
    model = recording.model
    probabilities = model.probabilities(recording.record.logits)
    for name, indices in (("", chosen), ("predicted_", predicted)):
        column = "target" if not name else "predicted"
        facts[column] = indices.tolist()
        facts[f"{name}label"] = [model.label(index) for index in facts[column]]
        facts[f"{name}probability"] = probabilities.gather(1, indices[:, None])[:, 0].tolist()
    return facts


def _coverage(opened: Sequence[Opened], layout: TokenLayout) -> Tensor | None:
    """(batch, rows, columns), NaN for an image without a mask; None where none has one."""
    masks = [one.mask for one in opened]
    if not any(mask is not None for mask in masks):
        return None
    nothing = torch.full((1, *layout.grid_size), torch.nan)
    covered = [
        nothing if mask is None else coverage_of(mask.unsqueeze(0), layout) for mask in masks
    ]
    return torch.cat(covered)
