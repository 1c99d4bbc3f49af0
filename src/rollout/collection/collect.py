"""A collection: the maps of many images as one Parquet table, made by many processes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from distributed.system import MEMORY_LIMIT

from rollout.collection.cluster import default_workers, open_engine, page_of
from rollout.collection.folder import Folder
from rollout.collection.inputs import Inputs, list_images
from rollout.collection.opening import Opened
from rollout.collection.run import Run
from rollout.collection.shards import Collected, Work, remember
from rollout.collection.task import (
    GIVEN,
    PREDICTED,
    Task,
    describe_task,
    find_targets,
    hash_weights,
)
from rollout.collection.work import explain_together
from rollout.models.card import describe
from rollout.models.load import load_model
from rollout.models.model import Model, check_model
from rollout.settings import (
    Backward,
    HeadFusion,
    Settings,
    check_count,
    check_discard_ratio,
    check_list,
)


def collect(
    model: Model | str,
    inputs: Inputs,
    out: str | Path,
    *,
    methods: Sequence[str] = ("gradient_rollout",),
    targets: Sequence[int | str] | None = None,
    head_fusions: Sequence[HeadFusion] = ("mean",),
    discard_ratios: Sequence[float] = (0.0,),
    start_block: int = 0,
    end_block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    legacy: bool = False,
    backward: Backward = "plain",
    checkpoint: str | Path | None = None,
    device: str = "auto",
    shard_size: int = 1000,
    batch: int = 32,
    overlays: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    announce: Callable[[str], object] | None = None,
) -> Collected:
    """Explain all images of a collection; the same call again does only what is missing.

    Each image goes through the network once, whatever the number of methods, targets and settings.
    An image that is broken or has vanished is a row with an error.

    Args:
        model: a model, or a name for `load_model`, which every process then loads by itself.
        inputs: files, folders, globs, tables, addresses; see `inputs.list_images`. Images that came
            since the last run are added.
        out: folder, or address of fsspec, for the table: a Parquet file for each shard.
        targets: class indices, labels, patterns such as "*cat*", "predicted", and "given", the one
            in the inputs; None is "given" where the inputs have targets, else "predicted". A method
            without gradients has one map for all of them.
        head_fusions, discard_ratios: each fusion with each ratio.
        start_block, end_block, head, query, legacy, backward: as for `explain`, for every map.
        checkpoint, device: for `load_model`, where `model` is a name.
        shard_size: images of one task and one file. What is killed loses at most these.
        batch: images of one forward pass; fewer where so many do not fit into memory.
        overlays: whether each map is written as a PNG too, in the look of vit-explain.
        workers: processes; 0 is this one alone, None one for each GPU, else for each core.
        scheduler: the address of a Dask cluster that exists, such as tcp://10.0.0.1:8786.
        progress: whether there is a bar with images per second and the time left.
        announce: is told the address of Dask's page about the run, or what it needs.

    Raises:
        ValueError: a setting that makes no sense, or other settings than those of the run before.
        RuntimeError: another run fills the same folder.
        OSError: an input is not there, or the table cannot be written.
    """
    if not isinstance(model, str):
        check_model(model)
    shard_size = check_count("shard_size", shard_size)
    for name, values in {"methods": methods, "discard_ratios": discard_ratios}.items():
        check_list(name, values)
    check_list("head_fusions", head_fusions)
    for discard_ratio in discard_ratios:
        check_discard_ratio(discard_ratio)
    images = list_images(inputs)
    options: dict[str, Any] = {
        "checkpoint": checkpoint and os.path.abspath(checkpoint),
        "device": device,
    }
    loaded = load_model(model, **options) if isinstance(model, str) else model
    knobs = Settings("mean", 0.0, start_block, end_block, head, query, legacy, backward)
    found = _targets(loaded, targets, images)
    ratios = tuple(map(float, discard_ratios))
    task = Task(tuple(methods), found, tuple(head_fusions), ratios, knobs, batch, overlays)
    _try_out(loaded, task)
    if scheduler is None and loaded.device.type == "cpu":
        task = replace(task, batch=min(batch, _most_images(loaded, workers)))
    run = Run(
        loaded if workers == 0 and scheduler is None else model,
        options,
        hash_weights(loaded),
        task,
        Folder.at(out),
    )
    with run.folder.claim():
        run.folder.begin(describe_task(loaded, run.weights, task, int(shard_size)))
        images = remember(run.folder, images, shard_size)
        work = Work(images, run.folder.parts())
        if work.missing:
            with open_engine(workers, scheduler=scheduler, value=run) as engine:
                if announce is not None and engine.workers:
                    announce(page_of(engine))
                work.do(engine, run.folder, progress)
    return work.summary(run.folder)


def _targets(
    model: Model, targets: Sequence[int | str] | None, images: pd.DataFrame
) -> tuple[int | str, ...]:
    if not model.num_classes:
        if targets is not None:
            check_list("targets", targets)
            raise ValueError(f"{model.name} has no classifier; got targets {list(targets)}")
        return (PREDICTED,)
    if targets is None:
        targets = [GIVEN if (images["target"] != "").any() else PREDICTED]
    check_list("targets", targets)
    return find_targets(model, targets)


def _most_images(model: Model, workers: int | None) -> int:
    """Images of one forward pass that take half of a process's share of the memory."""
    processes = max(1, default_workers() if workers is None else workers)
    return max(1, int(MEMORY_LIMIT / processes / 2 / describe(model).memory))


def _try_out(model: Model, task: Task) -> None:
    """A black image shows what is wrong with the settings, before any other is opened."""
    black = Opened({"image": 0, "path": ""}, model.black_image()[0], None, None)
    explain_together(model, [black], task)
