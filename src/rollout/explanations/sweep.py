"""The sweep: methods, head fusions, discard ratios and targets on one image, as a table."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from rollout.errors import shown
from rollout.explanations.recording import Recording
from rollout.explanations.sweep_arguments import check_axes, first_blocks, record_targets
from rollout.explanations.targets import Chosen
from rollout.maths.checks import check_real
from rollout.maths.metrics import mass_on_object, peak_on_object, rank_correlation, relative_entropy
from rollout.models.model import ImageSource, Model, OneTarget, check_model
from rollout.settings import METHODS, Backward, HeadFusion, Settings, check_backward

TENTHS = tuple(tenth / 10 for tenth in range(10))


def sweep(
    model: Model,
    image: ImageSource | Recording,
    *,
    methods: Sequence[str] = ("attention_rollout", "gradient_rollout"),
    head_fusions: Sequence[HeadFusion] = ("mean", "max", "min"),
    discard_ratios: Sequence[float] = TENTHS,
    targets: Sequence[OneTarget] | None = None,
    start_blocks: Sequence[int] | None = None,
    coverage: Mapping[str, Tensor] | None = None,
    start_block: int = 0,
    end_block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    legacy: bool = False,
    backward: Backward = "plain",
) -> pd.DataFrame:
    """Every map that the settings can make of one image: one forward pass, a backward per target.

    Args:
        image: one image as for `explain`, or its recording, which may bring a score to follow.
        targets: class indices, labels, sets of them or patterns of labels, as for `explain`; None
            is the recording's score or the predicted class.
        start_blocks: first blocks that count, one map for each; None is `start_block` alone.
        coverage: a class's label, as the table has it, to the share of each patch that the object
            covers, (rows, columns) or (1, rows, columns); such as `samples.load_coverage` gives.
        start_block, end_block, head, query, legacy, backward: as for `explain`, for every map.

    Returns:
        One row per method, head fusion, target, first block and discard ratio, in this order, with
        the columns method, head_fusion, discard_ratio, start_block, target (an index, or a
        frozenset of several), label (such as "dog", or "tabby or tiger cat") and
        entropy: of the map scaled to sum 1, as a share of log(patches): 1 is a map without
            contrast, 0 a single patch;
        rank_correlation: Spearman's, with the map of ratio 0 and otherwise the same settings;
        target_mass, peak_on_target: the share of the map's mass on the target, and whether its
            largest patch lies there (1 or 0); only with coverage, NaN for labels not in it;
        relevance: the map of `explain` with the same settings, (rows, columns) float32 array.
        backward: only where it is not "plain".
        Measures of a map that is 0 everywhere are NaN.

    Raises:
        ValueError: a setting that makes no sense, is there twice or missing; several images.
    """
    check_model(model)
    if coverage is not None and not isinstance(coverage, Mapping):
        raise TypeError(f"coverage must be a table from label to tensor, got {shown(coverage)}")
    starts = first_blocks(start_block, start_blocks)
    knobs = [
        Settings("mean", 0.0, start, end_block, head, query, legacy, backward) for start in starts
    ]
    check_axes(methods, head_fusions, discard_ratios, targets)
    for method in methods:
        check_backward(backward, method)
    recording, chosen = record_targets(model, image, methods, targets, backward)
    frames: list[pd.DataFrame] = []
    for method in methods:
        maps = None
        for target in chosen:
            if maps is None or METHODS[method].gradients:
                maps = _maps(recording, method, target, head_fusions, discard_ratios, knobs)
            frame = pd.DataFrame(
                product([method], head_fusions, starts, map(float, discard_ratios)),
                columns=["method", "head_fusion", "start_block", "discard_ratio"],
            )
            frame = frame[["method", "head_fusion", "discard_ratio", "start_block"]]
            label = None if target is None else model.label(target)
            frame = frame.assign(target=[target] * len(frame), label=label)
            frames.append(frame.assign(**_measures(maps, label, coverage)))
    table = pd.concat(frames, ignore_index=True)
    if backward != "plain":
        table.insert(table.columns.get_loc("start_block") + 1, "backward", backward)
    return table


def _maps(
    recording: Recording,
    method: str,
    target: Chosen | None,
    head_fusions: Sequence[HeadFusion],
    discard_ratios: Sequence[float],
    knobs: Sequence[Settings],
) -> Tensor:
    """(fusions, starts, 1 + ratios, rows, columns); the first of each is its map of ratio 0."""
    needed = sorted({0.0, *discard_ratios})
    maps = torch.stack(
        [recording.relevances(method, target, one, head_fusions, needed)[:, :, 0] for one in knobs],
        dim=1,
    )
    return maps[:, :, [needed.index(ratio) for ratio in (0.0, *discard_ratios)]]


def _measures(
    maps: Tensor, label: str | None, coverage: Mapping[str, Tensor] | None
) -> dict[str, object]:
    """The columns of `sweep` after the label: a value for each fusion, start and ratio."""
    undiscarded = maps[:, :, :1].expand_as(maps)[:, :, 1:].flatten(0, 2)
    maps = maps[:, :, 1:].flatten(0, 2)  # (fusions * starts * ratios, rows, columns)
    measures: dict[str, object] = {
        "entropy": relative_entropy(maps).numpy(),
        "rank_correlation": rank_correlation(maps, undiscarded).numpy(),
    }
    if coverage is not None:
        measures |= _on_target(maps, coverage.get(label or ""))
    return {**measures, "relevance": list(maps.numpy())}


def _on_target(maps: Tensor, coverage: Tensor | None) -> dict[str, object]:
    if coverage is None:
        return {"target_mass": math.nan, "peak_on_target": math.nan}
    target = _on_grid(coverage, maps)
    share, peak = mass_on_object(maps, target), peak_on_object(maps, target).float()
    peak = peak.where(share.isfinite(), math.nan)  # a map of zeros has no peak
    return {"target_mass": share.numpy(), "peak_on_target": peak.numpy()}


def _on_grid(coverage: Tensor, maps: Tensor) -> Tensor:
    """Coverage of the patches, once for each of the maps: (maps, rows, columns)."""
    grid_size = tuple(maps.shape[1:])
    if not isinstance(coverage, Tensor):
        raise TypeError(f"coverage must hold tensors {grid_size}, got {shown(coverage)}")
    check_real("coverage", coverage)
    if tuple(coverage.shape) not in (grid_size, (1, *grid_size)):
        raise ValueError(
            f"coverage must be {grid_size}, as the model's patch grid, or {(1, *grid_size)}; got "
            f"{tuple(coverage.shape)}"
        )
    return coverage.to(maps).expand(maps.shape)
