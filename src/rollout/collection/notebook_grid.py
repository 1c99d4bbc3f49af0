"""Notebooks with every combination of parameters, over many processes, with an index of them."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import papermill
from filelock import FileLock, Timeout
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from rollout.collection.cluster import open_engine
from rollout.collection.engine import Lost
from rollout.collection.notebooks import run_notebook
from rollout.files import whole_file

INDEX, LOCK, MARK = "index.csv", "_lock", "_done.json"
DONE, KEPT, FAILED = "done", "done before", "failed"


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


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: "done", "done before" or "failed".
        error: of the failed cell, on one line.
    """

    state: str
    seconds: float
    error: str = ""


def run_grid(
    notebooks: Sequence[str | Path],
    out: str | Path,
    grid: Mapping[str, Sequence[object]],
    parameters: Mapping[str, object] | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run each notebook with every combination of values; what was done before is kept.

    A run that fails is kept as NAME.failed.ipynb, and the others go on.

    Args:
        out: each run has a folder OUT/NOTEBOOK/VALUES; OUT/index.csv says how each one ended.
        grid: parameter to its values.
        parameters: the same for all runs.
        workers, scheduler: see `cluster.open_engine`.

    Returns:
        The index: notebook, the parameters of the grid, state, seconds, path, error.

    Raises:
        ValueError: a notebook has no such parameter; nothing is run.
        RuntimeError: another run fills the same folder.
    """
    out = Path(out).resolve()
    combinations = list_combinations(notebooks, out, grid, parameters or {})
    for notebook in dict.fromkeys(one.notebook for one in combinations):
        check_parameters(notebook, [*grid, *(parameters or {})])
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"{out} is being filled by another run; wait for its end or give another --out"
        ) from error
    with lock:
        outcomes = _run_missing(combinations, out, list(grid), workers, scheduler, progress)
    return _index(combinations, outcomes, list(grid))


def _run_missing(
    combinations: Sequence[Combination],
    out: Path,
    names: list[str],
    workers: int | None,
    scheduler: str | None,
    progress: bool,
) -> dict[Path, Outcome]:
    """The index is written anew after each run, so that it tells the truth at any time."""
    outcomes = {one.folder: outcome for one in combinations if (outcome := _before(one))}
    missing = [one for one in combinations if one.folder not in outcomes]

    def write() -> None:
        with whole_file(out / INDEX) as partial:
            _index(combinations, outcomes, names).to_csv(partial, index=False)

    write()
    if missing:
        with (
            open_engine(workers, scheduler=scheduler) as engine,
            tqdm(
                total=len(combinations),
                initial=len(outcomes),
                unit="notebook",
                disable=None if progress else True,  # None: shown on a terminal only
            ) as bar,
        ):
            for one, outcome in engine.run(run_combination, missing):
                lost = isinstance(outcome, Lost)
                outcomes[one.folder] = Outcome(FAILED, 0, outcome.reason) if lost else outcome
                write()
                bar.update()
    return outcomes


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


def _before(combination: Combination) -> Outcome | None:
    """How the same run ended before, if it was a success and is still there."""
    try:
        mark = json.loads((combination.folder / MARK).read_text())
    except (OSError, ValueError):
        return None
    same = mark.get("key") == combination.key and combination.executed.is_file()
    return Outcome(KEPT, mark["seconds"]) if same else None


def run_combination(combination: Combination) -> Outcome:
    """The job: run one notebook in its folder."""
    started = time.perf_counter()
    mark = combination.folder / MARK
    mark.unlink(missing_ok=True)
    combination.executed.unlink(missing_ok=True)
    try:
        run_notebook(combination.notebook, combination.folder, dict(combination.parameters))
    except (PapermillExecutionError, DeadKernelError) as error:
        said = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
        return Outcome(FAILED, time.perf_counter() - started, " ".join(said.split()))
    seconds = time.perf_counter() - started
    with whole_file(mark) as partial:
        partial.write_text(json.dumps({"key": combination.key, "seconds": seconds}))
    return Outcome(DONE, seconds)


def _index(
    combinations: Sequence[Combination], outcomes: Mapping[Path, Outcome], names: Sequence[str]
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for one in combinations:
        outcome = outcomes.get(one.folder, Outcome("waiting", float("nan")))
        path = one.failed if outcome.state == FAILED else one.executed
        rows.append(
            {
                "notebook": one.notebook.name,
                **{name: one.parameters[name] for name in names},
                "state": outcome.state,
                "seconds": round(outcome.seconds, 2),
                "path": path.as_posix(),
                "error": outcome.error,
            }
        )
    return pd.DataFrame(rows)
