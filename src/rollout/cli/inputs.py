"""Which images a command explains, and where each one's files go: never over an image."""

from argparse import ArgumentError, Namespace
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from PIL import Image

from rollout.files import as_path
from rollout.names import file_name
from rollout.settings import METHODS

SEEN = "input.png"  # what the network saw
AUDIT = "audit.png"


@dataclass(frozen=True)
class Job:
    """One image, as it was named, and the folder for its files."""

    image: Path
    folder: Path


def plan(arguments: Namespace) -> list[Job]:
    """The images named, those in the folders named, and where their files go.

    Raises:
        ArgumentError: a file that would be written is one of the images, or a folder has none.
    """
    images = [image for given in arguments.images for image in _found(as_path(given))]
    several = len(images) > 1 or any(as_path(given).is_dir() for given in arguments.images)
    names = _distinct(image.stem for image in images) if several else [""]
    out = as_path(arguments.out)
    jobs = [Job(image, out / name) for image, name in zip(images, names, strict=True)]
    _check_outputs(jobs, arguments)
    return jobs


def picture_pattern(arguments: Namespace, method: str, target: int | str = "*") -> str:
    """The name that vit-explain gives a picture, so that its users find their files."""
    stem = "grad_rollout" if method == "gradient_rollout" else method
    if method in METHODS and METHODS[method].gradients:
        stem += f"_{target}"
    start = f"_start_{arguments.start_block}" if arguments.start_block else ""
    start += "" if arguments.backward == "plain" else f"_{arguments.backward}"
    return f"{stem}_{arguments.discard_ratio:.3f}_{arguments.head_fusion}{start}.png"


def class_numbers(target: int | Set[int]) -> str:
    """Such as 281_282; of many the first few and how many there are, as file names are short."""
    indices = [target] if isinstance(target, int) else sorted(target)
    more = f"_of_{len(indices)}" if len(indices) > 8 else ""
    return "_".join(map(str, indices[:8])) + more


def _found(given: Path) -> list[Path]:
    """The image itself, or the images that lie in a folder, by name."""
    if not given.is_dir():
        return [given]
    known = _endings()
    images = [path for path in sorted(given.iterdir()) if path.suffix.lower() in known]
    images = [path for path in images if path.is_file() and not path.name.startswith(".")]
    if not images:
        raise ArgumentError(None, f"no image in the folder {given}")
    return images


def _endings() -> set[str]:
    """Of files that Pillow opens, and of those of which it is said what does."""
    formats = Image.registered_extensions()
    return {end for end, name in formats.items() if name in Image.OPEN} | {".heic", ".heif", ".dcm"}


def _distinct(stems: Iterable[str]) -> list[str]:
    """A folder's name for each: the image's own, numbered where several share it."""
    names: list[str] = []
    taken: set[str] = set()
    tried: Counter[str] = Counter()
    for stem in map(file_name, stems):
        name = stem
        # Some file systems take Cat and cat for the same.
        while name.casefold() in taken:
            tried[stem.casefold()] += 1
            name = f"{stem}-{tried[stem.casefold()] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _check_outputs(jobs: Sequence[Job], arguments: Namespace) -> None:
    """Nobody's own image may be replaced by what is made of it, whatever its name."""
    given: dict[Path, list[Path]] = {}
    for job in jobs:
        path = job.image.resolve()
        given.setdefault(path.parent, []).append(path)
    written = [picture_pattern(arguments, method) for method in ("gradient_rollout", "*")]
    written += [SEEN, AUDIT] if arguments.audit else [SEEN]
    for folder in {job.folder for job in jobs}:
        for path in given.get(folder.resolve(), []):
            name = path.name.casefold()
            if any(fnmatchcase(name, pattern.casefold()) for pattern in written):
                message = f"{folder / path.name} would be overwritten; give another folder as --out"
                raise ArgumentError(None, message)
    table = arguments.table
    if table is not None and as_path(table).resolve() in {job.image.resolve() for job in jobs}:
        raise ArgumentError(None, f"--table {table} is one of the images")
