"""Notebooks that are run where they lie: outputs arrive tidy and stamped, or nothing changes."""

import nbformat
import pytest
import rerun_notebooks as notebooks
from helpers import write_notebook
from nbclient.exceptions import CellExecutionError
from rerun_notebooks import STAMP, code_cells, main, rerun, stamp, tidy


def outputs(path):
    return [cell.outputs for cell in nbformat.read(path, 4).cells]


def test_outputs_and_the_stamp_arrive_in_the_file(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", "1 + 1")
    rerun(path)
    notebook = nbformat.read(path, 4)
    assert outputs(path)[1][0].data["text/plain"] == "2"
    assert notebook.metadata[STAMP] == stamp(notebook)


def test_pictures_arrive_whatever_backend_the_shell_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    plot = "from rollout.plots.figure import new_figure\nnew_figure(1, 1, width=1, height=1)[0]"
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", plot)
    rerun(path)
    assert "image/png" in outputs(path)[1][0].data


def test_a_second_run_changes_nothing(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", "print('seen')\n[1.5]")
    rerun(path)
    before = path.read_bytes()
    rerun(path)
    assert path.read_bytes() == before


def test_a_failing_notebook_is_left_as_it_was(tmp_path, capsys):
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", "1 / 0")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before and [path] == list(tmp_path.glob("*a.ipynb"))
    with pytest.raises(CellExecutionError):
        rerun(path)


def test_what_is_written_for_readme_is_copied_and_nothing_older(tmp_path, capsys):
    (tmp_path / "notebooks").mkdir()
    folder = tmp_path / "runs" / "a" / "readme"
    folder.mkdir(parents=True)
    (folder / "older.png").touch()
    path = write_notebook(
        tmp_path / "notebooks" / "a.ipynb",
        "output_folder = '../runs/a'",
        "from pathlib import Path\n(Path(output_folder) / 'readme').mkdir()\n"
        "(Path(output_folder) / 'readme' / 'new.png').write_text('picture')",
    )
    assert main([str(path), "--figures", str(tmp_path / "figures")]) == 0
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["new.png"]
    assert "1 files for README" in capsys.readouterr().out


def test_widgets_leave_their_picture_and_progress_bars_nothing():
    live = "application/vnd.jupyter.widget-view+json"
    data = [
        {live: {}, "text/plain": "training: 100%"},
        {live: {}, "text/plain": "Explorer()", "image/png": "iVBO"},
        {"text/plain": "2"},
    ]
    cell = nbformat.v4.new_code_cell("x")
    cell.outputs = [nbformat.v4.new_output("display_data", data=each) for each in data]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    tidy(notebook)
    kept = [set(output.data) for output in cell.outputs]
    assert kept == [{"text/plain", "image/png"}, {"text/plain"}]
    assert "widgets" not in notebook.metadata
    assert notebook.metadata["language_info"] == {"name": "python"}


def test_the_stamp_tells_what_changed(tmp_path, monkeypatch):
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", "1 + 1")
    notebook = nbformat.read(path, 4)
    before = stamp(notebook)
    notebook.cells.append(nbformat.v4.new_markdown_cell("prose"))
    assert stamp(notebook) == before
    code_cells(notebook)[1].source = "1 + 2"
    assert {name for name in before if stamp(notebook)[name] != before[name]} == {"code"}
    (tmp_path / "module.py").write_text("x = 1")
    monkeypatch.setattr(notebooks, "_PACKAGE", tmp_path)
    assert stamp(notebook)["package"] != before["package"]


def test_the_stamp_sees_where_one_cell_ends(tmp_path):
    codes = [["ab", "c"], ["a", "bc"]]
    paths = [write_notebook(tmp_path / f"{n}.ipynb", *code) for n, code in enumerate(codes)]
    one, two = (stamp(nbformat.read(path, 4))["code"] for path in paths)
    assert one != two


def test_injected_parameters_are_no_part_of_the_code(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'", "1 + 1")
    notebook = nbformat.read(path, 4)
    before = stamp(notebook)
    injected = nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(1, injected)
    assert stamp(notebook) == before
