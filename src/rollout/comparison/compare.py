"""`compare`: many maps of many images, measured; resumable, on one process or on all cores."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rollout.collection.cluster import open_engine
from rollout.collection.engine import Lost, held
from rollout.collection.folder import Folder
from rollout.collection.inputs import Inputs
from rollout.collection.run import Run
from rollout.collection.task import describe_model, hash_weights, versions
from rollout.comparison.candidates import find_candidates
from rollout.comparison.parts import as_part, count_rows, read_comparison
from rollout.comparison.plan import (
    FAMILIES,
    MOST,
    PIXELS,
    RANDOMISATION,
    TOKENS,
    WHAT_IF,
    WHERE,
    Job,
    Plan,
    count_images,
)
from rollout.comparison.randomisation import measure_randomisation
from rollout.comparison.removal import drops_patches, measure_pixels, measure_tokens
from rollout.comparison.sources import OwnImages, Scenes, Source, check_scene_classes
from rollout.comparison.what_if import measure_what_if
from rollout.comparison.where import measure_where
from rollout.demo.quality import UNSEEN_SEED
from rollout.models.load import load_model
from rollout.models.model import Model
from rollout.settings import Settings

MEASURED_BY = {
    WHERE: measure_where,
    TOKENS: measure_tokens,
    PIXELS: measure_pixels,
    RANDOMISATION: measure_randomisation,
}


def compare(
    model: Model | str,
    scenes: int | Inputs = 500,
    *,
    methods: Sequence[str | tuple[str, Settings]] | None = None,
    measures: Sequence[str] | None = None,
    most: Mapping[str, int | None] = MOST,
    seed: int = UNSEEN_SEED,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    batch_size: int = 10,
    workers: int | None = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure maps of many images, with controls; the same call again does only what is missing.

    All maps of an image come from one forward pass, and a backward pass for each target.

    Args:
        model: one that has classes, or a name for `load_model`.
        scenes: how many scenes of two objects to draw; or a user's own images: a table, or the name
            of a CSV or Parquet file, with the columns path, target (class index or label) and mask
            (a picture that is bright where the target is), a row for each target of an image.
        methods: names of METHODS, each with several settings, and pairs of a name and `Settings`;
            None is all of `candidates.default_candidates`. Gradient rollout is always there.
        measures: families out of "where", "what_if" (scenes only), "tokens", "pixels" and
            "randomisation"; None is all that the images allow.
        most: how many images a family sees at most; None is all.
        seed: of the scenes; those of `what_if` come from the next one.
        checkpoint, device: for `load_model`, where `model` is a name.
        out: a folder for the table, a Parquet file for each batch; None keeps nothing.
        batch_size: images of one forward pass.
        workers: processes; 0 is this one alone, None one for each GPU, else for each core.
        progress: whether there is a bar.

    Returns:
        A row for each image, target, method, setting, measure and step: image, target, label,
        method, setting ("" is the paper's), measure, step (a point of a curve; NaN elsewhere) and
        value. `tables.summary` and `tables.differences` say what it means.

    Raises:
        ValueError: a setting that makes no sense, or another than in the run before.
        RuntimeError: another run fills the same folder.
    """
    options: dict[str, Any] = {"checkpoint": checkpoint, "device": device}
    loaded = load_model(model, **options) if isinstance(model, str) else model
    if not loaded.num_classes:
        raise ValueError(f"{loaded.name} has no classes to ask for; give a model that has")
    plan = _plan(loaded, scenes, methods, measures, most, seed, batch_size)
    with _folder(out) as folder, folder.claim():
        weights = hash_weights(loaded)
        run = Run(model if workers != 0 else loaded, options, weights, plan, folder)
        folder.begin(
            {
                "model": describe_model(loaded, weights),
                **plan.description(),
                "versions": versions(),
            }
        )
        _fill(run, plan, workers, progress)
        return read_comparison(folder.url)


def _plan(
    model: Model,
    scenes: int | Inputs,
    methods: Sequence[str | tuple[str, Settings]] | None,
    measures: Sequence[str] | None,
    most: Mapping[str, int | None],
    seed: int,
    batch_size: int,
) -> Plan:
    if batch_size < 1 or (isinstance(scenes, int) and scenes < 1):
        raise ValueError(
            f"scenes and batch_size must be at least 1, got {scenes!r} and {batch_size}"
        )
    source: Source
    if isinstance(scenes, int):
        check_scene_classes(model)
        source = Scenes(seed, scenes)
    else:
        source = OwnImages.read(scenes)
    if measures is None:
        refused = [] if isinstance(source, Scenes) else [WHAT_IF]
        refused += [] if drops_patches(model) else [TOKENS]
        measures = [one for one in FAMILIES if one not in refused]
    elif TOKENS in measures and not drops_patches(model):
        raise ValueError(f"{model.name} cannot drop patches; leave {TOKENS!r} out of the measures")
    families = count_images(source, measures, most)
    return Plan(source, tuple(find_candidates(model, methods)), families, batch_size)


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Folder]:
    if out is not None:
        yield Folder.at(out)
        return
    with TemporaryDirectory(prefix="rollout-") as temporary:
        yield Folder.at(temporary)


def _fill(run: Run, plan: Plan, workers: int | None, progress: bool) -> None:
    there = run.folder.parts(count_rows)
    jobs = list(plan.jobs())
    missing = [job for job in jobs if job.number not in there]
    total, to_do = (sum(len(job.images) for job in some) for some in (jobs, missing))
    with (
        tqdm(
            total=total,
            initial=total - to_do,
            desc="compare",
            unit="image",
            disable=None if progress else True,
        ) as bar,
        open_engine(workers, value=run, dashboard=False) as engine,
    ):
        for job, result in engine.run(measure_job, missing):
            if isinstance(result, Lost):
                raise RuntimeError(f"{result.reason}; give a smaller batch_size")
            bar.set_postfix_str(job.family)
            bar.update(len(job.images))


def measure_job(job: Job) -> int:
    """Write the part of a job; returns its number of rows."""
    run: Run = held()
    table = job_table(run.ready_model(), run.task, job)
    run.folder.write_part(job.number, as_part(table))
    return len(table)


def job_table(model: Model, plan: Plan, job: Job) -> pd.DataFrame:
    """The rows of a job."""
    plan = plan.of(job)
    if job.family == WHAT_IF:
        cases = plan.crowd.open(model, job.images)
        return measure_what_if(model, plan, cases, job.images).table()
    return MEASURED_BY[job.family](model, plan, plan.source.open(model, job.images)).table()
