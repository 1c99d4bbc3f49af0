"""`rollout lab`: the notebooks in a folder of one's own, and JupyterLab on the first."""

import os
import sys
from argparse import ArgumentError, Namespace
from pathlib import Path

from rollout.files import NOTEBOOKS, as_path, whole_file


def open_lab(arguments: Namespace) -> None:
    """Copy the notebooks and become JupyterLab; does not return.

    Raises:
        ArgumentError: the folder is a file.
    """
    folder = as_path(arguments.folder)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(None, f"{folder} is a file; give a folder")
    copied, kept = copy_notebooks(folder)
    print(f"{folder}: {len(copied)} notebooks copied", flush=True)
    for path in kept:
        print(f"{path}: kept as it is, it differs from the one that comes with rollout", flush=True)
    first = folder / sorted(NOTEBOOKS.glob("*.ipynb"))[0].name
    command = [sys.executable, "-m", "jupyterlab", str(first)]
    command += ["--no-browser"] if arguments.no_browser else []
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # The kernel of this environment, whatever is installed for the user.
    os.execve(sys.executable, command, {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"})


def copy_notebooks(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy the shipped notebooks into a folder, never over one that is there.

    Returns:
        Those that were copied, and those that are there and differ.
    """
    copied, kept = [], []
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        path, content = folder / notebook.name, notebook.read_bytes()
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_bytes(content)
            copied.append(path)
        elif path.read_bytes() != content:
            kept.append(path)
    return copied, kept
