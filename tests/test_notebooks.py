"""Every notebook runs from top to bottom by papermill, and keeps the house's form."""

from pathlib import Path

import nbformat
import pytest

from rollout.batch import run_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
QUICK = {
    "08_train_the_demo_model": {
        "steps": 3,
        "full_image_steps": 1,
        "depth": 1,
        "quality_scenes": 4,
    }
}


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_says_what_was_seen(path, tmp_path):
    parameters = dict(QUICK.get(path.stem, {}))
    if path.stem.startswith("08"):
        parameters["checkpoint"] = str(tmp_path / "checkpoint.pt")
    executed, *files = run_notebook(path, tmp_path, parameters)
    cells = nbformat.read(executed, 4).cells
    assert "What we saw" in cells[-2].source
    assert "text/markdown" in cells[-1].outputs[-1].data
    assert files, "a notebook leaves pictures or tables in its output folder"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_keeps_the_form(path):
    cells = code_cells(path)
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and "output_folder" in tagged[0].source
    assert 8 <= len(cells) <= 30
    assert max(len(cell.source.splitlines()) for cell in cells) <= 20
    assert nbformat.read(path, 4).cells[0].source.splitlines()[0].endswith("?")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_copy_was_run_without_errors(path):
    cells = code_cells(path)
    assert any(cell.outputs for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert "widgets" not in nbformat.read(path, 4).metadata
    assert path.stat().st_size < 2_000_000
