"""What `rollout notebooks` does, once its arguments are parsed."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from papermill.exceptions import PapermillExecutionError

from rollout.collection.notebooks import run_notebook


def run_notebooks(arguments: Namespace) -> int:
    """Run one notebook after the other and print what they wrote; returns the exit code."""
    parameters = {name: _value(text) for name, text in arguments.parameter}
    written: list[Path] = []
    for notebook in arguments.notebooks:
        try:
            written += run_notebook(notebook, arguments.out, parameters)
        except PapermillExecutionError as error:
            print(f"{notebook} failed: {error.ename}: {error.evalue}", file=sys.stderr)
            print(f"see {arguments.out}/{Path(notebook).stem}.failed.ipynb", file=sys.stderr)
            return 1
    print("\nWritten:")
    for path in written:
        print(f"  {os.path.relpath(path)}")
    return 0


def _value(text: str) -> object:
    """Numbers and booleans as such, "none" as None, a file by its full path, the rest as text."""
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
    return text
