"""Run notebooks with papermill, one after the other, and say what they wrote.

python -m rollout.batch notebooks/01_vanilla_rollout.ipynb --out runs/demo -p model_name demo
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from rollout.files import whole_file

# Local kernels over TCP are what there is; without this they warn on every start.
_QUIET_KERNEL = Config({"KernelManager": {"transport_encryption": "auto"}})


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: dict[str, object] | None = None
) -> list[Path]:
    """Execute one notebook; its pictures and tables go to a folder of its name beside it.

    Args:
        notebook: with a cell tagged "parameters" that has an `output_folder`.
        out: folder for the executed notebook, which appears there whole or not at all; where a cell
            fails, as NAME.failed.ipynb instead.
        parameters: values for the cell tagged "parameters".

    Returns:
        The files that were written, the executed notebook first.
    """
    notebook, out = Path(notebook), Path(out).resolve()
    folder = out / notebook.stem
    executed, failed = out / notebook.name, out / f"{notebook.stem}.failed.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    failed.unlink(missing_ok=True)
    started = time.time()
    with whole_file(executed) as partial:
        try:
            papermill.execute_notebook(
                notebook,
                partial,
                {"output_folder": str(folder), **(parameters or {})},
                cwd=notebook.parent,
                config=_QUIET_KERNEL,
                store_widget_state=False,  # a page made from it would need the network
                progress_bar={"desc": notebook.stem, "unit": "cell"},
            )
        except PapermillExecutionError:
            os.replace(partial, failed)
            raise
    written = [file for file in folder.rglob("*") if file.stat().st_mtime >= started - 1]
    return [executed, *sorted(file for file in written if file.is_file())]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    parameters = {name: _value(text) for name, text in options.parameter}
    written: list[Path] = []
    for notebook in options.notebooks:
        try:
            written += run_notebook(notebook, options.out, parameters)
        except PapermillExecutionError as error:
            print(f"{notebook} failed: {error.ename}: {error.evalue}", file=sys.stderr)
            print(f"see {options.out}/{Path(notebook).stem}.failed.ipynb", file=sys.stderr)
            return 1
    print("\nWritten:")
    for path in written:
        print(f"  {os.path.relpath(path)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rollout.batch", description=__doc__)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    parser.add_argument("--out", default="runs", help="folder for what is written")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks",
    )
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
