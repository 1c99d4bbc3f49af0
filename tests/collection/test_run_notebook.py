"""Notebooks run whole: parameters arrive, files are listed, failures are kept and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import nbformat
import papermill
import pytest
from helpers import write_notebook

from rollout.cli.main import main
from rollout.cli.notebooks import read_parameters
from rollout.collection.notebooks import run_notebook


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(
        tmp_path / "lesson.ipynb",
        "output_folder = None\nword = 'default'",
        "from pathlib import Path\n(Path(output_folder) / 'word.txt').write_text(str(word))",
    )


def test_a_notebook_gets_its_parameters_and_lists_what_it_wrote(notebook, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["notebooks", str(notebook), "--out", str(out), "-p", "word", "changed"]) == 0
    assert (out / "lesson" / "word.txt").read_text() == "changed"
    printed = capsys.readouterr().out
    assert "lesson.ipynb" in printed and "word.txt" in printed
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("3", 3), ("0.5", 0.5), ("none", None), ("true", True), ("tabby, cat", "tabby, cat")],
        *[("[0, 0.9]", [0, 0.9]), ("(160, 320)", [160, 320]), ("[[1, 2], 'dog']", [[1, 2], "dog"])],
    ],
)
def test_values_are_numbers_and_lists_where_they_look_like_it(text, value):
    assert read_parameters([["word", text]]) == {"word": value}


def test_a_list_arrives_as_a_list(tmp_path):
    notebook = write_notebook(
        tmp_path / "sums.ipynb",
        "output_folder = None\nratios = [1.0]",
        "from pathlib import Path\n(Path(output_folder) / 'sum.txt').write_text(str(sum(ratios)))",
    )
    out = tmp_path / "o"
    assert main(["notebooks", str(notebook), "--out", str(out), "-p", "ratios", "[0, 0.9]"]) == 0
    assert (out / "sums" / "sum.txt").read_text() == "0.9"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["word", "[0, 0.9"], "'[0, 0.9' is no list"),
        (["word", "[cat, dog]"], "text in quotes"),
        (["two words", "3"], "a parameter's name is one word, got 'two words'"),
        (["word=3", "x"], "a parameter's name is one word, got 'word=3'"),
    ],
)
def test_parameters_that_cannot_be_meant_are_wrong_usage(notebook, tmp_path, capsys, given, said):
    assert main(["notebooks", str(notebook), "--out", str(tmp_path / "o"), "-p", *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_misspelt_parameter_is_refused_before_anything_runs(notebook, tmp_path, capsys):
    other = write_notebook(tmp_path / "other.ipynb", "output_folder = None\nwords = 3", "words")
    both = ["notebooks", str(other), str(notebook), "--out", str(tmp_path / "o")]
    assert main([*both, "-p", "words", "4"]) == 1
    said = capsys.readouterr().err
    assert "lesson.ipynb has no parameter 'words'; did you mean word?" in said
    assert not (tmp_path / "o").exists()


def test_a_notebook_without_parameters_takes_none(tmp_path):
    plain = write_notebook(tmp_path / "plain.ipynb", "1 + 1")
    content = nbformat.read(plain, as_version=4)
    del content.cells[0].metadata["tags"]
    nbformat.write(content, plain)
    with pytest.raises(ValueError, match='no cell tagged "parameters"'):
        run_notebook(plain, tmp_path / "o", {"word": 1})


@pytest.mark.parametrize("kind", ["missing", "broken", "folder"])
def test_what_is_no_notebook_ends_in_a_sentence(notebook, tmp_path, capsys, kind):
    path = tmp_path / "other.ipynb"
    if kind == "broken":
        path.write_text("{}")
    elif kind == "folder":
        path.mkdir()
    assert main(["notebooks", str(notebook), str(path), "--out", str(tmp_path / "o")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("rollout: error: ") and "other.ipynb" in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content["cells"][1].update(source=5), "cell 2 has no source"),
        (lambda content: content["cells"][1].update(source=None), "cell 2 has no source"),
        (lambda content: content["cells"][1].pop("source"), "cell 2 has no source"),
        (lambda content: content["cells"][0].pop("cell_type"), "cell 1 has no cell_type"),
        (lambda content: content["cells"][1].update(source="'\ud800'"), "surrogates not allowed"),
        (lambda content: content["metadata"].update(papermill="x"), "papermill noted"),
        (lambda content: content["metadata"].update(language_info=3), ""),
    ],
)
def test_damage_that_only_execution_would_meet_is_met_before(notebook, tmp_path, damage, message):
    content = json.loads(notebook.read_text())
    damage(content)
    notebook.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"lesson.ipynb is no whole notebook.*{message}"):
        run_notebook(notebook, tmp_path / "o", {"word": 1})
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("error", [TypeError("no table"), KeyError("name"), ValueError("odd")])
def test_damage_that_nobody_thought_of_ends_in_a_sentence(notebook, tmp_path, monkeypatch, error):
    def fails(*given, **options):
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", fails)
    with pytest.raises(
        ValueError, match=f"lesson.ipynb cannot be executed .{type(error).__name__}"
    ):
        run_notebook(notebook, tmp_path / "o")
    assert not list((tmp_path / "o").glob("*.ipynb"))


def test_another_setting_does_not_replace_what_is_there(notebook, tmp_path, capsys):
    run = ["notebooks", str(notebook), "--out", str(tmp_path / "o"), "-p", "word"]
    assert main([*run, "one"]) == 0
    assert main([*run, "one"]) == 0  # the same again
    assert main([*run, "two"]) == 1
    said = capsys.readouterr().err
    assert "was run with word='one', not word='two'; give another --out" in said
    assert (tmp_path / "o" / "lesson" / "word.txt").read_text() == "one"


def test_two_notebooks_of_one_name_are_refused(notebook, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    other = write_notebook(tmp_path / "folder" / "lesson.ipynb", "output_folder = None")
    assert main(["notebooks", str(notebook), str(other), "--out", str(tmp_path / "o")]) == 1
    assert "have one name" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_bad_one_does_not_keep_the_others_from_running(notebook, tmp_path, capsys):
    bad = write_notebook(tmp_path / "bad.ipynb", "output_folder = None", "1 / 0")
    dead = write_notebook(
        tmp_path / "dead.ipynb", "output_folder = None", "import os\nos.kill(os.getpid(), 9)"
    )
    out = tmp_path / "o"
    assert main(["notebooks", *map(str, (bad, dead, notebook)), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "word.txt" in printed.out
    summary = printed.err.partition("Failed:")[2]
    assert "bad.ipynb: ZeroDivisionError" in summary and "dead.ipynb: the kernel died" in summary
    assert "Traceback" not in printed.err
    for name in ("bad", "dead"):
        assert nbformat.read(out / f"{name}.failed.ipynb", as_version=4).cells
        assert not (out / f"{name}.ipynb").exists()


@pytest.mark.slow
def test_an_interrupt_ends_in_a_sentence_and_leaves_no_kernel(notebook, tmp_path):
    waits = write_notebook(
        tmp_path / "waits.ipynb",
        "output_folder = None\nword = 1",
        "import os, time\nfrom pathlib import Path\n"
        "(Path(output_folder) / 'pid').write_text(str(os.getpid()))\ntime.sleep(60)",
    )
    command = [sys.executable, "-m", "rollout", "notebooks", str(notebook), str(waits)]
    run = subprocess.Popen(
        [*command, "--out", str(tmp_path / "o")], stdout=PIPE, stderr=PIPE, text=True
    )
    file = tmp_path / "o" / "waits" / "pid"
    while not (file.exists() and file.read_text()):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    printed, said = run.communicate(timeout=30)
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("rollout: error: interrupted")
    assert "Traceback" not in said and "word.txt" in printed
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
    assert not list((tmp_path / "o").glob("waits*.ipynb")) and not list((tmp_path / "o").glob(".*"))


def test_a_file_is_found_from_where_the_command_was_given(notebook, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "cat.jpg").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert (
        main(["notebooks", str(notebook), "--out", str(tmp_path / "o"), "-p", "word", "cat.jpg"])
        == 0
    )
    found = (tmp_path / "o" / "lesson" / "word.txt").read_text()
    assert found == str(tmp_path / "here" / "cat.jpg")


def test_a_failure_is_kept_beside_and_reported(tmp_path, capsys):
    notebook = write_notebook(tmp_path / "bad.ipynb", "output_folder = None", "1 / 0")
    assert main(["notebooks", str(notebook), "--out", str(tmp_path / "o")]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "o" / "bad.failed.ipynb").exists()
    assert not (tmp_path / "o" / "bad.ipynb").exists()


def test_a_kernel_that_is_not_there_ends_in_a_sentence(tmp_path, capsys):
    path = write_notebook(tmp_path / "old.ipynb", "output_folder = None")
    content = nbformat.read(path, as_version=4)
    content.metadata.kernelspec.name = "python2"
    nbformat.write(content, path)
    assert main(["notebooks", str(path), "--out", str(tmp_path / "o")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "old.ipynb needs the kernel 'python2', and here are python3" in said
    assert not (tmp_path / "o").exists()


def test_a_later_success_removes_the_failed_copy(notebook, tmp_path):
    failed = tmp_path / "o" / "lesson.failed.ipynb"
    failed.parent.mkdir()
    failed.touch()
    written = run_notebook(notebook, tmp_path / "o")
    assert not failed.exists()
    assert [file.name for file in written] == ["lesson.ipynb", "word.txt"]
