"""JupyterLab as a user meets it: each notebook opens on the right kernel and runs by Run All."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import write_notebook
from rerun_notebooks import code_cells
from test_notebooks import NOTEBOOKS, QUICK, ROOT, TRAINING

PROMPTS = """() => [...document.querySelectorAll(
    '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt'
)].map(prompt => prompt.textContent)"""


def with_parameters(path: Path, folder: Path) -> Path:
    """The notebook as it is; the training one with the few steps that a test has time for."""
    if path.stem not in TRAINING:
        return path
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in QUICK[path.stem].items())
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


# What a newcomer opens first, and those with widgets: of the others a browser shows no more than
# papermill does.
IN_BROWSER = ("01_vanilla_rollout", "03_discard_ratio_sweep", "07_explorer")
ONES = [
    pytest.param(path, id=path.stem, marks=() if path.stem in IN_BROWSER else pytest.mark.repeats)
    for path in NOTEBOOKS
]


@pytest.mark.slow
@pytest.mark.parametrize("path", ONES)
def test_run_all_runs_every_cell(path, lab, tmp_path):
    page = lab.open(with_parameters(path, tmp_path))
    assert page.locator(".jp-Dialog").count() == 0, "JupyterLab asks something"
    assert lab.ask(page, "__import__('sys').executable") == sys.executable
    lab.run_all(page, timeout=300)
    counts = page.evaluate(PROMPTS)
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [re.sub(r"\D", "", count) for count in counts] == [
        str(number) for number in range(1, len(cells) + 1)
    ]
    assert lab.outside == []


def test_a_cell_that_fails_ends_the_run_with_its_traceback(lab, tmp_path):
    page = lab.open(write_notebook(tmp_path / "a.ipynb", "2", "missing_name + 1", "3"))
    with pytest.raises(AssertionError, match="missing_name.*NameError|NameError.*missing_name"):
        lab.run_all(page, timeout=60)


def test_make_lab_opens_the_first_notebook():
    dry = subprocess.run(
        ["make", "-n", "--no-print-directory", "lab"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    command = dry.stdout.strip().splitlines()[-1]
    assert "fetchNews" in dry.stdout, "JupyterLab asks whether it may fetch news"
    assert "jupyterlab" in command and command.endswith("notebooks/01_vanilla_rollout.ipynb")
