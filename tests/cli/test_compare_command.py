"""`rollout compare`: the table in a folder, its means on the screen, mistakes in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rollout.cli import main as cli
from rollout.comparison import compare as compared

QUICK = ("--workers", "0", "--measures", "where", "--methods", "raw_attention", "--device", "cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two pictures with the left and the right half as masks; a target each."""
    rows = []
    for number, label in enumerate(["cat", "bird"]):
        noise = np.random.default_rng(number).integers(0, 256, (50, 70, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{label}.png")
        mask = np.zeros((50, 70), np.uint8)
        mask[:, 35 * number : 35 * number + 35] = 255
        Image.fromarray(mask).save(tmp_path / f"{label}_mask.png")
        rows.append({"path": f"{label}.png", "target": label, "mask": f"{label}_mask.png"})
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    return tmp_path / "images.csv"


def test_own_images_are_compared_into_a_folder(images: Path, capsys) -> None:
    arguments = ["compare", "--images", str(images), "--out", "out", *QUICK]
    arguments += ["--measures", "where,pixels", "--most", "pixels=1"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    table = pd.read_parquet("out")
    assert f"out: {len(table)} rows, 2 images" in shown
    assert table["label"].unique().tolist() == ["cat", "bird"]
    assert all(word in shown for word in ("average precision", "raw attention", "control: edges"))
    means = pd.read_csv("out/_summary.csv", keep_default_na=False)
    assert means.groupby(means["measure"].str.contains("pixels"))["images"].max().tolist() == [2, 1]
    mask = means[(means["method"] == "control: mask") & (means["measure"] == "peak")]
    assert mask["mean"].item() == 1
    assert (pd.read_csv("out/_differences.csv")["p_holm"] <= 1).all()
    assert cli.main(arguments) == 0  # nothing is left to do


def test_an_interrupt_says_how_to_go_on(images: Path, capsys, monkeypatch) -> None:
    def interrupted(*job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compared, "job_table", interrupted)
    assert cli.main(["compare", "--images", str(images), "--out", "out", *QUICK]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--scenes", "0"], 2, "must be a number above 0"),
        (["--scenes", "3", "--images", "a.csv"], 2, "not allowed with"),
        (["--checkpoint", "mine.pt"], 2, "--checkpoint needs --model"),
        (["--most", "tokens"], 2, "must be FAMILY=N,FAMILY=N, got 'tokens'"),
        (["--most", "beauty=3"], 1, "measures must be some of where, what_if"),
        (["--methods", "guesswork"], 1, "method must be one of"),
        (["--measures", "beauty"], 1, "measures must be some of where, what_if"),
        ([], 1, "demo does not know the scenes' classes, such as 'airplane'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, said: str, images: Path, capsys):
    given = [] if not arguments or "--scenes" in arguments else ["--images", str(images)]
    try:
        found = cli.main(["compare", "--out", "out", "--workers", "0", *given, *arguments])
    except SystemExit as exit:
        found = exit.code
    error = capsys.readouterr().err
    assert (found, error.count("\n")) == (code, 1) and said in error
