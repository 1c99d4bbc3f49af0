"""Notebooks with other parameters, executed by papermill."""

import os
import time
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from rollout.files import whole_file

# Local kernels over TCP are what there is; without this they warn on every start.
QUIET_KERNEL = Config({"KernelManager": {"transport_encryption": "auto"}})


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
                config=QUIET_KERNEL,
                store_widget_state=False,  # a page made from it would need the network
                progress_bar={"desc": notebook.stem, "unit": "cell"},
            )
        except PapermillExecutionError:
            os.replace(partial, failed)
            raise
    written = [file for file in folder.rglob("*") if file.stat().st_mtime >= started - 1]
    return [executed, *sorted(file for file in written if file.is_file())]
