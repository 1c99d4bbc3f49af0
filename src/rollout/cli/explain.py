"""What the commands of the command line do, once their arguments are parsed."""

from argparse import ArgumentError, Namespace
from collections.abc import Sequence
from pathlib import Path

from rollout.explanations.explanation import Explanation, explain
from rollout.files import whole_file
from rollout.models.audit import Audit, audit
from rollout.models.load import find_device, load_model
from rollout.models.model import Model
from rollout.models.networks import check_name
from rollout.plots.figure import figure_png, save_picture

AUDIT = "audit.png"


def explain_files(arguments: Namespace) -> None:
    """Write the pictures of every image and print a line for each file.

    Raises:
        ArgumentError: the arguments make no sense together, here, or for this model.
        ValueError, OSError: an image, the weights or the output folder does not work.
    """
    images = arguments.images
    folders = _folders(images, arguments.out)
    _check_outputs(images, folders, ("input.png", AUDIT) if arguments.audit else ("input.png",))
    model = _load(arguments)
    target = _target(model, arguments)
    for image, folder in zip(images, folders, strict=True):
        _write(_explanation(model, image, target, arguments), folder, image)
        if arguments.audit:
            _write_audit(audit(model, image), folder)


def _check_outputs(images: Sequence[Path], folders: Sequence[Path], names: Sequence[str]) -> None:
    """Nobody's own input.png may be replaced by what the network saw of it."""
    given = {image.resolve() for image in images}
    for path in [folder / name for folder in folders for name in names]:
        if path.resolve() in given:
            message = f"{path} would be overwritten; give another folder as --out"
            raise ArgumentError(None, message)


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


def _target(model: Model, arguments: Namespace) -> int | None:
    given = arguments.target if arguments.category_index is None else arguments.category_index
    try:
        return None if given is None else model.class_index(given)
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error


def _explanation(
    model: Model, image: Path, target: int | None, arguments: Namespace
) -> Explanation:
    default = "attention_rollout" if target is None else "gradient_rollout"
    try:
        return explain(
            model,
            image,
            method=arguments.method or default,
            target=target,
            head_fusion=arguments.head_fusion,
            discard_ratio=arguments.discard_ratio,
            start_block=arguments.start_block,
        )
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def _folders(images: Sequence[Path], out: Path) -> list[Path]:
    """Where each image's files go: `out`, or for several images a folder in it named after each."""
    if len(images) == 1:
        return [out]
    names: list[str] = []
    for image in images:
        name, number = image.stem, 1
        # Some file systems take Cat and cat for the same.
        while name.casefold() in map(str.casefold, names):
            number += 1
            name = f"{image.stem}-{number}"
        names.append(name)
    return [out / name for name in names]


def _write(explanation: Explanation, folder: Path, image: Path) -> None:
    seen = save_picture(explanation.pictures[0].numpy(), folder / "input.png")
    print(f"{seen}: what the network saw of {image}", flush=True)
    overlay = explanation.save_overlay(folder / _file_name(explanation))
    print(f"{overlay}: {explanation.title()}", flush=True)
    if explanation.dominated():
        print(f"  {explanation.dominated()}", flush=True)


def _write_audit(found: Audit, folder: Path) -> None:
    """The whole of it on paper, and the picture in a file."""
    with whole_file(folder / AUDIT) as partial:
        partial.write_bytes(figure_png(found.plot()))
    print(f"{folder / AUDIT}: the patches that draw most attention", flush=True)
    print(found, flush=True)


def _file_name(explanation: Explanation) -> str:
    """The name that vit-explain gives it, so that its users find their files."""
    settings = explanation.settings
    method = explanation.method
    if method == "gradient_rollout" and explanation.target is not None:
        method = f"grad_rollout_{explanation.target[0]}"
    start = f"_start_{settings.start_block}" if settings.start_block else ""
    return f"{method}_{settings.discard_ratio:.3f}_{settings.head_fusion}{start}.png"
