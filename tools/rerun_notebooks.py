"""Run the project's notebooks where they lie, tidy what they leave, and stamp it.

python tools/rerun_notebooks.py notebooks/01_vanilla_rollout.ipynb --figures figures

A committed notebook carries its outputs, so that it reads well without being run. The stamp says
what they were computed with: a hash of the notebook's code, of this package, and of its data.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from rollout.collection.notebooks import QUIET_KERNEL
from rollout.files import DATA, whole_file

STAMP = "run_with"


_WIDGET = "application/vnd.jupyter.widget-view+json"


_PACKAGE = Path(__file__).parents[1] / "src" / "rollout"


def rerun(notebook: str | Path) -> None:
    """Execute a notebook with its own parameters and replace it by the result, whole or not at all.

    Raises:
        CellExecutionError: a cell failed; the notebook is left as it was.
    """
    notebook = Path(notebook)
    content = nbformat.read(notebook, as_version=4)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    client = NotebookClient(
        content,
        timeout=None,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(notebook.parent)}},
        config=QUIET_KERNEL,
    )
    # A backend that the shell names would keep the pictures out of the notebook.
    client.execute(env={k: v for k, v in os.environ.items() if k != "MPLBACKEND"})
    tidy(content)
    content.metadata[STAMP] = stamp(content)
    with whole_file(notebook) as partial:
        nbformat.write(content, partial)


def tidy(notebook: NotebookNode) -> None:
    """Remove what differs from run to run or needs a live kernel: times, widgets, versions.

    A widget leaves its static picture where it has one; a bar of progress leaves nothing. Slides
    are marked.
    """
    mark_slides(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
        cell.outputs = [output for output in cell.outputs if not _only_live(output)]
        for output in cell.outputs:
            output.get("data", {}).pop(_WIDGET, None)


def mark_slides(notebook: NotebookNode) -> None:
    """For `jupyter nbconvert --to slides`: a heading begins a section, other prose a slide."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            kind = "slide" if cell.source.startswith("#") else "subslide"
            cell.metadata["slideshow"] = {"slide_type": kind}


def _only_live(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return _WIDGET in data and set(data) <= {_WIDGET, "text/plain"}


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's own code, without the parameters that papermill put in."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def stamp(notebook: NotebookNode) -> dict[str, str]:
    """Hashes of all that a notebook's outputs come from: its code, this package, its data."""
    code = (cell.source.encode() for cell in code_cells(notebook))
    package = sorted(path for kind in ("py", "js", "css") for path in _PACKAGE.rglob(f"*.{kind}"))
    data = sorted([*(DATA / "models").glob("*.safetensors"), *(DATA / "samples").glob("*_*")])
    return {
        "code": _hash(code),
        "package": _hash(file.read_bytes() for file in package),
        "data": _hash(file.read_bytes() for file in data),
    }


def _hash(parts: Iterable[bytes]) -> str:
    """Of the parts, not of their sum: where one ends counts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def publish_figures(notebook: Path, figures: Path) -> list[Path]:
    """Copy what the notebook wrote for README, pictures and their data, to the committed folder."""
    figures.mkdir(parents=True, exist_ok=True)
    written = sorted(_readme_folder(notebook).glob("*"))
    return [Path(shutil.copyfile(file, figures / file.name)) for file in written]


def _readme_folder(notebook: Path) -> Path:
    """As the notebooks' own `output_folder` has it."""
    return notebook.parent.parent / "runs" / notebook.stem / "readme"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--figures", type=Path, help="folder for what README shows")
    options = parser.parse_args(arguments)
    for notebook in options.notebooks:
        shutil.rmtree(_readme_folder(notebook), ignore_errors=True)
        started = time.perf_counter()
        try:
            rerun(notebook)
        except CellExecutionError as error:
            print(f"{notebook} failed and was left as it was:\n{error}", file=sys.stderr)
            return 1
        copied = publish_figures(notebook, options.figures) if options.figures else []
        seconds = time.perf_counter() - started
        print(f"{notebook}: {seconds:.0f} s, {len(copied)} files for README", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
