"""Notebooks run whole: parameters arrive, files are listed, failures are kept and reported."""

import pytest
from helpers import write_notebook

from rollout.cli.main import main
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


def test_values_are_numbers_where_they_look_like_it(notebook, tmp_path):
    for text, expected in [("3", "3"), ("0.5", "0.5"), ("none", "None"), ("true", "True")]:
        assert (
            main(["notebooks", str(notebook), "--out", str(tmp_path / "o"), "-p", "word", text])
            == 0
        )
        assert (tmp_path / "o" / "lesson" / "word.txt").read_text() == expected


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


def test_a_later_success_removes_the_failed_copy(notebook, tmp_path):
    failed = tmp_path / "o" / "lesson.failed.ipynb"
    failed.parent.mkdir()
    failed.touch()
    written = run_notebook(notebook, tmp_path / "o")
    assert not failed.exists()
    assert [file.name for file in written] == ["lesson.ipynb", "word.txt"]
