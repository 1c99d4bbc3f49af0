"""However a command ends, it is one line and an exit code."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from helpers import ROOT

from rollout.cli import ending
from rollout.cli import lab as lab_command
from rollout.cli import main as cli
from rollout.cli.lab import copy_notebooks


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


def test_an_error_that_nobody_thought_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending.run(raising(KeyError("no\nsuch key"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("rollout: error: KeyError: ") and said.count("\n") == 1
    kept = Path(said.split("traceback in ")[1].strip())
    assert "Traceback" in kept.read_text() and "raising" not in said
    kept.unlink()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; what was listed is written"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device", "a.png"), 1, "a.png: No space left on device"),
        (ValueError("two\nlines"), 1, "two lines"),
        (RuntimeError(), 1, "RuntimeError"),
    ],
)
def test_each_kind_of_end(error, code, said, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending.run(raising(error)) == code
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1 and found.startswith("rollout: error: ")


def test_a_warning_is_a_line_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        for message in ("this\nis new", "this\nis new", "another"):
            warnings.warn_explicit(message, UserWarning, "x.py", 1, module="rollout.models.x")

    assert ending.run(command) == 0
    assert capsys.readouterr().err == "rollout: warning: this is new\nrollout: warning: another\n"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    python = f"{sys.executable} -m rollout"
    return subprocess.run(
        ["bash", "-c", command.replace("ROLLOUT", python)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


def test_a_closed_pipe_is_quiet() -> None:
    found = shell("ROLLOUT models | head -n 1; exit ${PIPESTATUS[0]}")
    assert found.returncode == 141 and found.stderr == "" and found.stdout.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_a_full_disk_under_the_output() -> None:
    found = shell("ROLLOUT models --pattern 'cait*' > /dev/full")
    assert found.returncode == 1
    assert found.stderr == "rollout: error: No space left on device\n"


def test_a_device_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "scene_cat_dog", "--device", "meta"]) == 2
    assert "device 'meta' have no values; use auto, cpu" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert not ended.value.code and capsys.readouterr().out.startswith("rollout 0.")


# rollout lab


def test_the_notebooks_are_copied_and_never_over_a_changed_one(tmp_path: Path) -> None:
    shipped = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    copied, kept = copy_notebooks(tmp_path / "mine")
    assert [path.name for path in copied] == shipped and kept == []
    changed, gone = copied[0], copied[1]
    changed.write_text("mine")
    gone.unlink()
    assert copy_notebooks(tmp_path / "mine") == ([gone], [changed])
    assert changed.read_text() == "mine"


def test_lab_opens_the_first_with_the_kernel_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(lab_command.os, "execve", lambda *call: started.append(call))
    assert cli.main(["lab", str(tmp_path / "mine"), "--no-browser"]) == 0
    ((program, command, environment),) = started
    assert program == sys.executable and command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert Path(command[3]) == sorted((tmp_path / "mine").glob("*.ipynb"))[0]
    assert "--no-browser" in command and environment["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert "notebooks copied" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert cli.main(["lab", str(tmp_path / "file")]) == 2
