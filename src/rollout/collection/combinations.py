"""Every combination of parameters of notebooks, each with a folder and a hash of its own."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path

import papermill

from rollout.collection.notebooks import check_parameters_table
from rollout.settings import check_list


@dataclass(frozen=True)
class Combination:
    """One run of a notebook.

    Attributes:
        folder: of what it writes, named by the values.
        key: hash of the notebook's source and the parameters; the run is repeated when it changes.
    """

    notebook: Path
    parameters: Mapping[str, object]
    folder: Path
    key: str

    @property
    def executed(self) -> Path:
        return self.folder / self.notebook.name

    @property
    def failed(self) -> Path:
        return self.folder / f"{self.notebook.stem}.failed.ipynb"


def list_combinations(
    notebooks: Sequence[str | Path],
    out: Path,
    grid: Mapping[str, Sequence[object]],
    parameters: Mapping[str, object],
) -> list[Combination]:
    """Every notebook with every combination.

    Raises:
        FileNotFoundError: a notebook is not there.
        ValueError: two notebooks of one name, a value that is there twice or missing, a parameter
            that is both fixed and varied.
    """
    check_list("notebooks", notebooks)
    check_parameters_table(parameters)
    check_parameters_table(grid)
    for name, values in grid.items():
        check_list(f"the grid of the parameter {name}", values)
    paths = [Path(notebook).resolve() for notebook in notebooks]
    twice = {path.stem for path in paths if [one.stem for one in paths].count(path.stem) > 1}
    if twice:
        raise ValueError(f"two notebooks are called {twice.pop()}, and have one folder; rename one")
    for name, values in grid.items():
        if not values or len({_text(value) for value in values}) < len(values):
            raise ValueError(f"the grid needs each value of {name} once, got {list(values)}")
        if name in parameters:
            raise ValueError(f"{name} has one value and a grid of values; give one of the two")
    return [one for path in paths for one in _combinations(path, out, grid, parameters)]


def _combinations(
    path: Path, out: Path, grid: Mapping[str, Sequence[object]], parameters: Mapping[str, object]
) -> Iterator[Combination]:
    source = path.read_bytes()
    taken: set[str] = set()
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        everything = {**parameters, **chosen}
        said = json.dumps(everything, sort_keys=True, default=str).encode()
        key = hashlib.sha256(source + b"\0" + said).hexdigest()
        name = folder_name(chosen)
        if name.casefold() in taken:  # values that differ only in what no file name may have
            name = f"{name}-{hashlib.sha256(said).hexdigest()[:8]}"
        taken.add(name.casefold())
        yield Combination(path, everything, out / path.stem / name, key)


def folder_name(values: Mapping[str, object]) -> str:
    """Such as target=cat,discard_ratio=0.9; what no file name may have becomes a dash."""
    text = ",".join(f"{name}={_text(value)}" for name, value in values.items())
    name = re.sub(r"[^\w.,=+-]+", "-", text)
    short = len(name) <= 150
    return name if short else f"{name[:140]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _text(value: object) -> str:
    """A file is named by its name alone."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def check_parameters(notebook: Path, names: Sequence[str]) -> None:
    """Refuse names that the notebook's cell of parameters does not have."""
    known = list(papermill.inspect_notebook(notebook))
    for name in names:
        if name not in known:
            close = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"{notebook.name} has no parameter {name!r}; {hint}")
