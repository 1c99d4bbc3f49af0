"""Grids of notebooks: every combination has a folder and a line in the index; failures are kept."""

import json

import nbformat
import pandas as pd
import pytest
from helpers import write_notebook
from nbclient.exceptions import DeadKernelError

from rollout.cli.main import main
from rollout.collection import notebook_grid
from rollout.collection.combinations import folder_name
from rollout.collection.lock import only_one
from rollout.collection.notebook_grid import run_grid


@pytest.fixture
def notebook(tmp_path):
    """Writes its parameters down; three of its 24 combinations fail."""
    return write_notebook(
        tmp_path / "lesson.ipynb",
        "output_folder = None\ntarget = 'cat'\nratio = 0.0\nfusion = 'mean'",
        "assert not (target == 'dog' and fusion == 'max' and ratio < 0.3), 'no such map'",
        "from pathlib import Path\n"
        "(Path(output_folder) / 'said.txt').write_text(f'{target} {ratio} {fusion}')",
    )


GRID = {"target": ["cat", "dog"], "ratio": [0, 0.1, 0.2, 0.9], "fusion": ["mean", "max", "min"]}


@pytest.mark.slow
def test_a_grid_of_24_with_three_failures_and_a_second_run(notebook, tmp_path, capsys):
    out = tmp_path / "runs"
    arguments = ["notebooks", str(notebook), "--out", str(out), "--workers", "2"]
    for name, values in GRID.items():
        arguments += ["--grid", f"{name}={','.join(map(str, values))}"]
    assert main(arguments) == 1
    index = pd.read_csv(out / "index.csv")
    assert index["state"].value_counts().to_dict() == {"done": 21, "failed": 3}
    failed = index[index["state"] == "failed"]
    assert set(zip(failed["target"], failed["fusion"], strict=True)) == {("dog", "max")}
    assert failed["error"].tolist() == ["AssertionError: no such map"] * 3
    for row in index.to_dict("records"):
        cells = nbformat.read(row["path"], as_version=4).cells
        wrong = [o for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
        assert bool(wrong) == (row["state"] == "failed") and row["seconds"] > 0
    [said] = (out / "lesson" / "target=cat,ratio=0.9,fusion=min").rglob("said.txt")
    assert said.read_text() == "cat 0.9 min"
    assert "24 runs, 21 done, 3 failed" in capsys.readouterr().out
    assert main(arguments) == 1
    again = pd.read_csv(out / "index.csv")
    assert again["state"].value_counts().to_dict() == {"done before": 21, "failed": 3}
    assert again["path"].tolist() == index["path"].tolist()


@pytest.fixture
def ran(monkeypatch):
    """Stands for papermill: notes what is run, and fails where told."""
    calls = []

    def run(notebook, out, parameters):
        calls.append(dict(parameters))
        if parameters["target"] == "dies":
            raise DeadKernelError("Kernel died")
        (out / notebook.name).parent.mkdir(parents=True, exist_ok=True)
        (out / notebook.name).write_text("ran")
        return [out / notebook.name]

    monkeypatch.setattr(notebook_grid, "run_notebook", run)
    return calls


def grid(notebook, tmp_path, values, **fixed):
    return run_grid([notebook], tmp_path / "runs", values, fixed, workers=0, progress=False)


def test_only_what_changed_is_run_again(notebook, tmp_path, ran):
    index = grid(notebook, tmp_path, {"target": ["a", "b"], "ratio": [0, 1]})
    assert index["state"].tolist() == ["done"] * 4 and len(ran) == 4
    index = grid(notebook, tmp_path, {"target": ["a", "b", "c"], "ratio": [0]})
    assert index["state"].tolist() == ["done before"] * 2 + ["done"] and len(ran) == 5
    grid(notebook, tmp_path, {"target": ["a"], "ratio": [0]}, fusion="max")
    assert ran[5:] == [{"fusion": "max", "target": "a", "ratio": 0}]
    source = nbformat.read(notebook, as_version=4)
    source.cells[-1].source += "\n# changed"
    nbformat.write(source, notebook)
    grid(notebook, tmp_path, {"target": ["b"], "ratio": [0]})
    assert len(ran) == 7


def test_a_kernel_that_dies_is_a_line_of_the_index_and_is_tried_again(notebook, tmp_path, ran):
    for _ in range(2):
        index = grid(notebook, tmp_path, {"target": ["dies", "lives"]})
        assert index["state"][0] == "failed" and "Kernel died" in index["error"][0]
    assert [call["target"] for call in ran] == ["dies", "lives", "dies"]


def test_the_index_tells_what_was_done_when_it_is_interrupted(notebook, tmp_path, ran, monkeypatch):
    run = notebook_grid.run_notebook

    def interrupted(notebook, out, parameters):
        if parameters["target"] == "c":
            raise KeyboardInterrupt
        return run(notebook, out, parameters)

    monkeypatch.setattr(notebook_grid, "run_notebook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid(notebook, tmp_path, {"target": ["a", "b", "c", "d"]})
    states = pd.read_csv(tmp_path / "runs" / "index.csv")["state"]
    assert states.tolist() == ["done", "done", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("values", "fixed", "said"),
    [
        ({"targte": ["a"]}, {}, "has no parameter 'targte'; did you mean target"),
        ({"target": ["a"]}, {"size": 3}, "no parameter 'size'; it has output_folder, target"),
        ({"target": ["a", "a"]}, {}, "each value of target once"),
        ({"target": []}, {}, "the parameter target is empty"),
        ({"target": ["a"]}, {"target": "b"}, "target has one value and a grid"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    notebook, tmp_path, ran, values, fixed, said
):
    with pytest.raises(ValueError, match=said):
        grid(notebook, tmp_path, values, **fixed)
    assert ran == [] and not (tmp_path / "runs").exists()


def test_two_runs_at_once_are_refused(notebook, tmp_path, ran):
    with only_one(tmp_path / "runs"), pytest.raises(RuntimeError, match="filled by another run"):
        grid(notebook, tmp_path, {"target": ["a"]})


def test_values_that_differ_only_in_what_no_file_may_have_get_two_folders(notebook, tmp_path, ran):
    index = grid(notebook, tmp_path, {"target": ["a/b", "a:b", "A b"]})
    assert index["path"].str.casefold().nunique() == 3
    marks = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("_done.json")]
    assert len({mark["key"] for mark in marks}) == 3


def test_folders_are_named_by_the_values(tmp_path):
    assert folder_name({"target": "cat", "ratio": 0.9}) == "target=cat,ratio=0.9"
    assert folder_name({"image": str(tmp_path / "cat 1.png")}) == "image=cat-1.png"
    assert len(folder_name({"text": "x" * 500})) < 200


@pytest.mark.parametrize("given", ["target", "target=", "=a"])
def test_a_grid_without_values_is_wrong_usage(notebook, given, capsys):
    assert main(["notebooks", str(notebook), "--grid", given]) == 2
    assert "--grid must be NAME=VALUE" in capsys.readouterr().err
