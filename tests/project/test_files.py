"""Files appear whole or not at all, where they were meant to; shipped ones are what they were."""

import os
import stat
from pathlib import Path

import pytest
from helpers import ROOT
from write_manifest import manifest

from rollout import files, load_model
from rollout.demo import samples, scenes
from rollout.demo.samples import load_masks, sample_path
from rollout.files import DATA, MANIFEST, SAMPLES, check_shipped, whole_file, with_suffix
from rollout.models import census


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("a")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == 0o666 & ~mask


@pytest.mark.parametrize("given", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(given: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(given)
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert mode(tmp_path / "a.txt") == given and (tmp_path / "a.txt").read_text() == "new"


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with whole_file("~/a/b.txt") as partial:
        partial.write_text("x")
    assert (tmp_path / "a" / "b.txt").read_text() == "x" and not (tmp_path / "~").exists()
    assert (
        with_suffix("~/dog") == tmp_path / "dog.png"
        and with_suffix("a.b/dog.pdf").name == "dog.pdf"
    )


# What is shipped


def test_the_manifest_names_every_shipped_file() -> None:
    assert MANIFEST.read_text() == manifest(), "run `make manifest`"
    assert len(files.shipped_hashes()) > 20 and ROOT in MANIFEST.parents


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of some of the data, to be damaged."""
    for name in ("SHA256SUMS", "samples/scene_cat_dog.png", "samples/scene_cat_dog_mask.png",
                 "models/census.csv", "sprites/noto_emoji.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    places = {files: ("DATA", "MANIFEST", "SAMPLES"), samples: ("SAMPLES",)}
    places |= {census: ("TABLE",), scenes: ("SPRITE_SHEET",)}
    for module, name in [(home, name) for home in places for name in places[home]]:
        place = getattr(module, name)
        monkeypatch.setattr(module, name, tmp_path / place.relative_to(DATA))
    files.shipped_hashes.cache_clear()
    yield tmp_path
    files.shipped_hashes.cache_clear()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("samples/scene_cat_dog.png", lambda folder: sample_path("scene_cat_dog")),
        ("samples/scene_cat_dog_mask.png", lambda folder: load_masks("scene_cat_dog")),
        ("models/census.csv", lambda folder: census.read_census(folder / "models/census.csv")),
        ("sprites/noto_emoji.png", lambda folder: check_shipped(scenes.SPRITE_SHEET)),
    ],
)
def test_a_damaged_file_is_named(name: str, read, copied: Path) -> None:
    read(copied)
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{Path(name).name} is damaged: its hash is not the one in"
    ):
        read(copied)
    files.enter_shipped(copied / name)  # made anew, it is what is shipped
    check_shipped(copied / name)
    assert (copied / "SHA256SUMS").read_text().count("\n") == MANIFEST.read_text().count("\n")


def test_a_file_that_the_manifest_does_not_name(copied: Path) -> None:
    (copied / "samples" / "scene_new.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="scene_new.png is damaged"):
        sample_path("scene_new")


def test_files_of_others_are_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    assert check_shipped(tmp_path / "a.png") == tmp_path / "a.png"
    assert sample_path(tmp_path / "a.png") == tmp_path / "a.png"
    assert sample_path("scene_cat_dog") == SAMPLES / "scene_cat_dog.png"


def test_a_damaged_card_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout.models import load

    for name in ("models/demo.safetensors", "models/demo.json"):
        (copied / name).write_bytes((ROOT / "data" / name).read_bytes())
    monkeypatch.setattr(load, "DEMO_WEIGHTS", copied / "models" / "demo.safetensors")
    load_model("demo", device="cpu")
    card = copied / "models" / "demo.json"
    card.write_text(card.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(
        ValueError, match="demo.json is damaged: its hash is not the one in SHA256SUMS"
    ):
        load_model("demo", device="cpu")
