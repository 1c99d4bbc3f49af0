"""What `rollout explain` does, once its arguments are parsed and its images found."""

from argparse import ArgumentError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollout.cli.ending import FAILURE, complain, sentence
from rollout.cli.inputs import AUDIT, SEEN, Job, class_numbers, picture_pattern
from rollout.cli.table import Table
from rollout.explanations.explaining import explain
from rollout.explanations.explanation import Explanation
from rollout.explanations.targets import Chosen, chosen_classes
from rollout.files import whole_file
from rollout.models.audit import Audit, audit
from rollout.models.load import find_device, load_model
from rollout.models.model import Model
from rollout.models.networks import check_name
from rollout.plots.figure import figure_png, save_picture
from rollout.settings import METHODS


def explain_files(arguments: Namespace, jobs: Sequence[Job]) -> int:
    """Write the pictures of every image and print a line for each file; returns the exit code.

    Raises:
        ArgumentError: the arguments make no sense together, here, or for this model.
        ValueError, OSError: an image, the weights or the output folder does not work.
    """
    model = _load(arguments)
    target = _target(model, arguments)
    waiting = [job for job in jobs if not (arguments.skip_existing and _is_done(job, arguments))]
    failed, table = 0, Table(arguments.table, keep=arguments.skip_existing)
    try:
        for number, job in enumerate(waiting, 1):
            try:
                explanation = _explanation(model, job.image, target, arguments)
            except (OSError, ValueError) as error:
                if not arguments.keep_going:
                    raise
                failed += complain(sentence(error), 1)
                continue
            count = f" ({number} of {len(waiting)})" if len(waiting) > 1 else ""
            table.add(model, job.image, explanation, _write(explanation, job, arguments, count))
            if arguments.audit:
                _write_audit(audit(model, job.image), job.folder)
    finally:
        table.write()
    if arguments.skip_existing or arguments.keep_going:
        done, skipped = len(waiting) - failed, len(jobs) - len(waiting)
        print(f"{done} images explained, {skipped} skipped, {failed} failed")
    return FAILURE if failed else 0


def _load(arguments: Namespace) -> Model:
    name = arguments.model
    try:
        find_device(arguments.device)
        check_name(name)
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error
    return load_model(
        name,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        image_size=arguments.image_size,
        labels=_labels(arguments.labels),
        weights=arguments.weights,
    )


def _labels(names: str | None) -> list[str] | None:
    """Of a text file with one on each line, or separated by commas."""
    if names is None:
        return None
    path = Path(names).expanduser()
    if path.is_file():
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    if "," not in names:
        raise FileNotFoundError(f"no file of labels {names}; several may be given as cat,dog,bird")
    return [name.strip() for name in names.split(",")]


def _target(model: Model, arguments: Namespace) -> Chosen | None:
    """The class that was asked for, or the set of classes."""
    given = arguments.target
    if arguments.category_index is not None:
        given = set(arguments.category_index)
    try:
        return None if given is None else chosen_classes(model.class_indices(given, 1))[0]
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error


def _explanation(
    model: Model, image: Path, target: Chosen | None, arguments: Namespace
) -> Explanation:
    try:
        return explain(
            model,
            image,
            method=_method(arguments),
            target=target,
            head_fusion=arguments.head_fusion,
            discard_ratio=arguments.discard_ratio,
            start_block=arguments.start_block,
            backward=arguments.backward,
        )
    except ValueError as error:
        message = str(error) if str(image) in str(error) else f"{image}: {error}"
        raise ValueError(message) from error


def _method(arguments: Namespace) -> str:
    chosen = arguments.target is not None or arguments.category_index is not None
    follows = chosen or arguments.backward != "plain"
    return arguments.method or ("gradient_rollout" if follows else "attention_rollout")


def _is_done(job: Job, arguments: Namespace) -> bool:
    """Whether a picture of this method, ratio and fusion is there, and the map if it is wanted."""
    pictures = list(job.folder.glob(picture_pattern(arguments, _method(arguments))))
    if arguments.maps:
        pictures = [picture for picture in pictures if picture.with_suffix(".npy").is_file()]
    return bool(pictures)


def _write(explanation: Explanation, job: Job, arguments: Namespace, count: str) -> dict[str, Any]:
    """Write the files of an image and print them; returns where picture and map are."""
    seen = save_picture(explanation.pictures[0].numpy(), job.folder / SEEN)
    print(f"{seen}: what the network saw of {job.image}{explanation.note()}{count}", flush=True)
    follows = METHODS[explanation.method].gradients and explanation.target is not None
    target = class_numbers(explanation.target[0]) if follows and explanation.target else "*"
    name = picture_pattern(arguments, explanation.method, target)
    overlay = explanation.save_overlay(job.folder / name)
    print(f"{overlay}: {explanation.title()}", flush=True)
    if explanation.dominated():
        print(f"  {explanation.dominated()}", flush=True)
    if not arguments.maps:
        return {"picture": overlay}
    relevance = overlay.with_suffix(".npy")
    with whole_file(relevance) as partial:
        np.save(partial, explanation.map[0].numpy())
    print(f"{relevance}: its map on the patch grid", flush=True)
    return {"picture": overlay, "map": relevance}


def _write_audit(found: Audit, folder: Path) -> None:
    """The whole of it on paper, and the picture in a file."""
    with whole_file(folder / AUDIT) as partial:
        partial.write_bytes(figure_png(found.plot()))
    print(f"{folder / AUDIT}: the patches that draw most attention", flush=True)
    print(found, flush=True)
