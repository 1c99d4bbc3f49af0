"""What `rollout notebooks` does, once its arguments are parsed."""

import ast
import os
import sys
from argparse import ArgumentError, Namespace
from pathlib import Path

from nbclient.exceptions import DeadKernelError

from rollout.collection.notebooks import FAILURES, check_runs, failed_copy, run_notebook


def run_notebooks(arguments: Namespace) -> int:
    """Run one notebook after the other and print what they wrote; returns the exit code.

    A notebook that fails does not keep the others from running.
    """
    parameters = read_parameters(arguments.parameter)
    check_runs(arguments.notebooks, arguments.out, parameters)
    written: list[Path] = []
    failed: dict[Path, str] = {}
    try:
        for notebook in map(Path, arguments.notebooks):
            try:
                written += run_notebook(notebook, arguments.out, parameters)
            except FAILURES as error:
                failed[notebook] = _reason(error)
                print(f"{notebook} failed: {failed[notebook]}", file=sys.stderr)
    finally:  # also where it is interrupted
        _sum_up(written, failed, arguments.out)
    return 1 if failed else 0


def _reason(error: Exception) -> str:
    if isinstance(error, DeadKernelError):
        return "the kernel died, as it does without memory or where a library crashes"
    return " ".join(f"{getattr(error, 'ename', '')}: {getattr(error, 'evalue', error)}".split())


def _sum_up(written: list[Path], failed: dict[Path, str], out: str) -> None:
    if written:
        print("\nWritten:")
    for path in written:
        print(f"  {os.path.relpath(path)}")
    if failed:
        print("\nFailed:", file=sys.stderr)
    for notebook, reason in failed.items():
        copy = os.path.relpath(failed_copy(notebook, out))
        print(f"  {notebook}: {reason}; see {copy}", file=sys.stderr)


def read_parameters(given: list[list[str]]) -> dict[str, object]:
    """Names to values, from what stood on the command line.

    Raises:
        ArgumentError: a name that Python would not take, one that is given twice, or a list that
            cannot be read.
    """
    parameters: dict[str, object] = {}
    for name, text in given:
        if not name.isidentifier():
            raise ArgumentError(None, f"a parameter's name is one word, got {name!r}")
        if name in parameters:
            raise ArgumentError(None, f"the parameter {name} is given twice")
        parameters[name] = read_value(text)
    return parameters


def read_value(text: str) -> object:
    """Numbers, lists and booleans as such, "none" as None, a file by its full path, else text."""
    if Path(text).suffix and Path(text).is_file():
        return str(Path(text).resolve())  # a notebook runs in its own folder
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return _list(text) if text.strip().startswith(("[", "(")) else text


def _list(text: str) -> object:
    """A list, or a tuple, which papermill would hand on as text."""
    try:
        return _as_lists(ast.literal_eval(text.strip()))
    except (SyntaxError, ValueError) as error:
        raise ArgumentError(
            None, f"{text!r} is no list; write numbers, and text in quotes, as in '[0, \"dog\"]'"
        ) from error


def _as_lists(value: object) -> object:
    return [_as_lists(one) for one in value] if isinstance(value, list | tuple) else value
