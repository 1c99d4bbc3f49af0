"""Notebooks with every combination of parameters, over many processes, with an index of them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rollout.collection.cluster import open_engine
from rollout.collection.combinations import Combination, check_parameters, list_combinations
from rollout.collection.engine import Lost
from rollout.collection.lock import only_one
from rollout.collection.notebooks import FAILURES, run_notebook
from rollout.files import whole_file

INDEX, MARK = "index.csv", "_done.json"
DONE, KEPT, FAILED = "done", "done before", "failed"


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
    with only_one(out):
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
            for one, result in engine.run(run_combination, missing):
                if isinstance(result, Lost):
                    result = Outcome(FAILED, 0, result.reason)
                outcomes[one.folder] = result
                write()
                bar.update()
    return outcomes


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
    except FAILURES as error:
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
