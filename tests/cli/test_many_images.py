"""Folders, counts, tables and maps; what is broken or there already; and never over an image."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_cli import Run, files

from rollout import explain, load_model
from rollout.cli import inputs
from rollout.cli import main as cli
from rollout.models import images as opening

OVERLAY = "attention_rollout_0.900_max.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different shapes, and what is none."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a.png", "b.JPG", "c.webp")):
        noise = np.random.default_rng(number).integers(0, 256, (50, 60 + number, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("none")
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"none")
    return tmp_path / "photos"


def test_a_folder_is_its_images(run: Run, folder: Path) -> None:
    code, out, err = run(folder, "--out", "maps")
    assert (code, err) == (0, "")
    assert files("maps") == [f"{n}/{f}" for n in "abc" for f in (OVERLAY, "input.png")]
    lines = out.splitlines()
    assert lines[0] == f"maps/a/input.png: what the network saw of {folder / 'a.png'} (1 of 3)"
    assert lines[4].endswith("c.webp (3 of 3)") and len(lines) == 6


def test_each_image_is_decoded_once(run: Run, folder: Path, monkeypatch) -> None:
    decoded = []
    as_rgb = opening._as_rgb
    monkeypatch.setattr(opening, "_as_rgb", lambda image: decoded.append(1) or as_rgb(image))
    assert run(folder)[0] == 0 and len(decoded) == 3


def test_table_and_maps(run: Run, folder: Path) -> None:
    arguments = ("--target", "dog", "--table", "t/all.csv", "--maps", "--head_fusion", "mean")
    code, out, err = run(folder, *arguments)
    assert (code, err) == (0, "") and "t/all.csv: a row for each of 3 images" in out
    table = pd.read_csv("t/all.csv").set_index("image")
    model = load_model("demo", device="cpu")
    for path in map(Path, table.index):
        row = table.loc[str(path)]
        one = explain(
            *(model, path), method="gradient_rollout", target="dog", head_fusion="mean",
            discard_ratio=0.9,
        )  # fmt: skip
        np.testing.assert_allclose(np.load(row["map"]), one.map[0], atol=1e-7)
        assert Path(row["picture"]).is_file() and row["label"] == "dog" and row["target"] == 1
        predicted = int(one.logits.argmax())
        assert row["predicted"] == predicted and row["predicted_label"] == model.label(predicted)
        assert row["probability"] == pytest.approx(one.probability.item(), abs=1e-5)


def test_a_broken_image_ends_the_run_unless_told(run: Run, folder: Path) -> None:
    content = (folder / "b.JPG").read_bytes()
    (folder / "b.JPG").write_bytes(content[: len(content) // 2])  # its beginning is an image's
    code, out, err = run(folder, "--table", "t.csv")
    assert code == 1 and err.count("\n") == 1 and "b.JPG is a damaged or truncated image" in err
    assert files() == [f"a/{OVERLAY}", "a/input.png", "t.csv"]
    assert "t.csv: a row for each of 1" in out
    (folder / "a.png").write_bytes(b"none")
    code, out, err = run(folder, "--keep-going", "--out", "again")
    assert code == 1 and err.count("rollout: error: ") == 2 and "a.png is not an image" in err
    assert out.splitlines()[-1] == "1 images explained, 0 skipped, 2 failed"
    assert files("again") == [f"c/{OVERLAY}", "c/input.png"]


def test_what_exists_is_skipped(run: Run, folder: Path) -> None:
    assert run(folder / "a.png", folder / "b.JPG", "--table", "t.csv")[0] == 0
    before = Path("a", OVERLAY).stat().st_mtime_ns
    code, out, _ = run(folder, "--skip-existing", "--table", "t.csv")
    assert code == 0 and out.splitlines()[-1] == "1 images explained, 2 skipped, 0 failed"
    assert Path("a", OVERLAY).stat().st_mtime_ns == before
    assert len(pd.read_csv("t.csv")) == 3
    # Another class, ratio or a map that is not there yet is not there.
    for more in (["--discard_ratio", 0.5], ["--target", "dog"], ["--maps"]):
        assert "3 images explained" in run(folder, "--skip-existing", *more)[1].splitlines()[-1]


def test_a_sample_by_name_and_a_folder_without_images(run: Run, tmp_path: Path) -> None:
    assert run("scene_cat_dog")[0] == 0 and files() == [OVERLAY, "input.png"]
    (tmp_path / "empty").mkdir()
    code, _, err = run(tmp_path / "empty")
    assert code == 2 and f"no image in the folder {tmp_path / 'empty'}" in err
    code, _, err = run("scene_cat_dog", "--table", "t.txt")
    assert code == 2 and "must be a file NAME.csv, got 't.txt'" in err


# Never over an image, never beside the folder


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("input.png", []),
        (OVERLAY, []),
        ("grad_rollout_1_0.900_max.png", ["--target", "dog"]),
        ("grad_rollout_2_0.900_max.png", ["--method", "gradient_rollout"]),
        ("raw_attention_0.500_min.png", ["--method", "raw_attention", "--discard_ratio", "0.5",
                                         "--head_fusion", "min"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("linked", [False, True])
def test_no_output_is_an_input(run: Run, image: Path, name, arguments, linked) -> None:
    own = Path(name)
    own.write_bytes(image.read_bytes())
    given = own
    if linked:
        given = image.with_name("link.png")
        given.symlink_to(own.resolve())
    code, out, err = run(given, *arguments)
    assert (code, out) == (2, "") and f"{name} would be overwritten; give another folder" in err
    assert own.read_bytes() == image.read_bytes() and files() == [name]


def test_a_table_is_no_input_either(run: Run, image: Path) -> None:
    odd = image.rename(image.with_suffix(".csv"))
    code, _, err = run(odd, "--table", odd)
    assert code == 2 and "is one of the images" in err


@pytest.mark.parametrize("stem", ["..", ".", "...", "a.", " ", "~", "-x", "a\nb", "x" * 200])
def test_every_output_stays_below_the_folder(run: Run, image: Path, stem: str) -> None:
    odd = image.with_name(f"{stem}.png")
    odd.write_bytes(image.read_bytes())
    before = files(image.parent)
    code, _, err = run("--out", "maps", "--", image, odd)
    assert (code, err) == (0, "")
    assert all(name.startswith("here/maps/") for name in set(files(image.parent)) - set(before))
    assert len(files("maps")) == 4 and all(len(Path(name).parts) == 2 for name in files("maps"))


def test_many_images_of_one_name_are_told_apart_quickly() -> None:
    images = [f"d{number}/image.jpg" for number in range(3000)]
    arguments = cli._parser().parse_args(["explain", *images, "--out", "out"])
    started = time.perf_counter()
    jobs = inputs.plan(arguments)
    assert time.perf_counter() - started < 5
    assert len({job.folder for job in jobs}) == 3000 and jobs[2].folder == Path("out/image-3")


def test_the_home_folder(run: Run, image: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(image.parent))
    assert run("~/both.png", "--out", "~/maps")[0] == 0
    assert files(image.parent / "maps") == [OVERLAY, "input.png"] and files() == []
