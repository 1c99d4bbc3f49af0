"""What `rollout notebooks --grid` does, once its arguments are parsed."""

from argparse import ArgumentError, Namespace

from rollout.cli.notebooks import read_parameters, read_value
from rollout.collection.notebook_grid import FAILED, run_grid


def run_notebook_grid(arguments: Namespace) -> int:
    """Run all combinations, print a line for each; returns the exit code."""
    parameters = read_parameters(arguments.parameter)
    index = run_grid(
        arguments.notebooks,
        arguments.out,
        _grid(arguments.grid),
        parameters,
        workers=arguments.workers,
        scheduler=arguments.scheduler,
    )
    for row in index.to_dict("records"):
        print(f"{row['path']}: {row['state']}" + (f", {row['error']}" if row["error"] else ""))
    counts = index["state"].value_counts()
    said = ", ".join(f"{number} {state}" for state, number in counts.items())
    print(f"{arguments.out}/index.csv: {len(index)} runs, {said}")
    return 1 if (index["state"] == FAILED).any() else 0


def _grid(given: list[str]) -> dict[str, list[object]]:
    """--grid target=cat,dog --grid discard_ratio=0,0.9"""
    grid: dict[str, list[object]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not name.isidentifier() or not equals or not values or name in grid:
            raise ArgumentError(None, f"--grid must be NAME=VALUE,VALUE,... once, got {text!r}")
        grid[name] = [read_value(value.strip()) for value in values.split(",")]
    return grid
