"""Notebooks with other parameters, executed by papermill."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillException, PapermillExecutionError
from traitlets.config import Config

from rollout.errors import shown
from rollout.files import whole_file
from rollout.names import one_line
from rollout.settings import check_list

# Local kernels over TCP are what there is; without this they warn on every start.
QUIET_KERNEL = Config({"KernelManager": {"transport_encryption": "auto"}})

FAILURES = (PapermillExecutionError, DeadKernelError)  # of a notebook, once it runs


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: Mapping[str, object] | None = None
) -> list[Path]:
    """Execute one notebook; its pictures and tables go to a folder of its name beside it.

    Args:
        notebook: with a cell tagged "parameters" that has an `output_folder`.
        out: folder for the executed notebook, which appears there whole or not at all; where a cell
            fails, or the kernel dies, as NAME.failed.ipynb instead.
        parameters: values for the cell tagged "parameters".

    Returns:
        The files that were written, the executed notebook first.

    Raises:
        FileNotFoundError, ValueError: as `check_runs`, before anything runs; or the notebook is
            damaged in a way that shows only then.
        PapermillExecutionError: a cell failed.
        DeadKernelError: the kernel's process ended.
    """
    notebook, out, parameters = Path(notebook), Path(out).resolve(), parameters or {}
    check_runs([notebook], out, parameters)
    folder = out / notebook.stem
    executed, failed = out / notebook.name, failed_copy(notebook, out)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    failed.unlink(missing_ok=True)
    started = time.time()
    with whole_file(executed) as partial:
        try:
            papermill.execute_notebook(
                notebook,
                partial,
                {"output_folder": str(folder), **parameters},
                cwd=notebook.parent,
                config=QUIET_KERNEL,
                extra_arguments=["--log-level=CRITICAL"],  # what an interrupt makes it say
                store_widget_state=False,  # a page made from it would need the network
                progress_bar={"desc": notebook.stem, "unit": "cell"},
            )
        except FAILURES:
            os.replace(partial, failed)
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{notebook} cannot be executed ({_brief(error)})") from error
    written = [file for file in folder.rglob("*") if file.stat().st_mtime >= started - 1]
    return [executed, *sorted(file for file in written if file.is_file())]


def failed_copy(notebook: str | Path, out: str | Path) -> Path:
    """Where a notebook goes that did not run to its end."""
    return Path(out) / f"{Path(notebook).stem}.failed.ipynb"


def check_runs(
    notebooks: Iterable[str | Path], out: str | Path, parameters: Mapping[str, object]
) -> None:
    """See before anything runs that all of it can begin, and that no run replaces another.

    Raises:
        FileNotFoundError: a notebook is not there.
        ValueError: a file is no notebook, or its kernel is not here; a parameter is not in its
            parameters cell; two notebooks have one name; `out` holds the same notebook, run with
            other parameters.
    """
    check_list("notebooks", notebooks)
    check_parameters_table(parameters)
    seen: dict[str, Path] = {}
    for path in map(Path, notebooks):
        known = _known_parameters(path)
        for name in parameters:
            _check_parameter(name, known, path)
        if path.stem in seen:
            raise ValueError(
                f"{seen[path.stem]} and {path} have one name, and would leave one result; run them "
                "one after the other, each with its own --out"
            )
        seen[path.stem] = path
        _check_place(Path(out) / path.name, parameters)


def check_parameters_table(parameters: object) -> None:
    """Refuse what is no table from names to values."""
    if not isinstance(parameters, Mapping) or not all(isinstance(name, str) for name in parameters):
        raise TypeError(f"parameters must be a table from name to value, got {shown(parameters)}")


def _known_parameters(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no notebook {path}")
    content = _read(path)
    _check_whole(content, path)
    wanted = content.metadata.get("kernelspec")
    kernel = wanted.get("name") if isinstance(wanted, dict) else None
    kernels = KernelSpecManager().find_kernel_specs()
    if kernel is not None and kernel not in kernels:
        raise ValueError(f"{path} needs the kernel {kernel!r}, and here are {', '.join(kernels)}")
    try:
        return papermill.inspect_notebook(path)
    except PapermillException as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # damage makes the readers raise nearly anything
        raise ValueError(f"{path} is no whole notebook ({_brief(error)})") from error


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except OSError:
        raise
    except Exception as error:  # damage makes the readers raise nearly anything
        raise ValueError(f"{path} is no notebook ({_brief(error)})") from error


def _check_whole(notebook: NotebookNode, path: Path) -> None:
    """See that there is what execution needs, which readers do not ask for."""
    missing = [
        f"cell {number} has no {name}"
        for number, cell in enumerate(notebook.cells, start=1)
        for name in ("cell_type", "source")
        if not isinstance(cell.get(name), str)
    ]
    if not isinstance(notebook.metadata.get("papermill", {}), dict):
        missing.append("what papermill noted in it is no table")
    try:
        nbformat.writes(notebook).encode()
    except Exception as error:  # such as half of a character
        missing.append(_brief(error))
    if missing:
        raise ValueError(f"{path} is no whole notebook ({missing[0]})")


def _brief(error: Exception) -> str:
    return one_line(f"{type(error).__name__} {error}")


def _check_parameter(name: str, known: Mapping[str, Any], path: Path) -> None:
    if name in known:
        return
    if not known:
        raise ValueError(f'{path} has no cell tagged "parameters", so {name} cannot be set')
    close = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
    raise ValueError(f"{path} has no parameter {name!r}; {hint}")


def _check_place(executed: Path, parameters: Mapping[str, object]) -> None:
    """The same run again replaces what it left; another one would leave a mixture of both."""
    if not executed.is_file():
        return
    before = dict(_read(executed).metadata.get("papermill", {}).get("parameters", {}))
    before.pop("output_folder", None)
    now = json.loads(json.dumps(parameters, default=str))
    if before != {name: value for name, value in now.items() if name != "output_folder"}:
        raise ValueError(
            f"{executed} was run with {_said(before)}, not {_said(now)}; give another --out, so "
            "that both are kept"
        )


def _said(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "its own values"
