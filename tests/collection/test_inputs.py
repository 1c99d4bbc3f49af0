"""What the inputs of a collection are: each image once, in order, whatever they come in."""

import importlib.util
import os
import zipfile
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from image_files import write_images

from rollout import collect
from rollout.collection.inputs import absolute, list_images


def paths(*inputs):
    return list_images(list(inputs))["path"].tolist()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "a" / "deep", 2)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    return tmp_path


def names(folder, *files):
    return [(folder / file).as_posix() for file in files]


def test_a_folder_is_all_images_below_it_by_name(here):
    expected = names(here / "a", "0000.png", "0001.png", "0002.png", "deep/0000.png")
    assert paths("a")[:4] == expected
    assert len(paths("a")) == 5


def test_files_folders_and_globs_together_give_each_image_once_in_the_order_given(here):
    given = paths("a/0002.png", "a/*.png", Path("a"))
    assert given[:3] == names(here / "a", "0002.png", "0000.png", "0001.png")
    assert len(given) == len(set(given)) == 5
    assert paths("a/**/*.png") == [path for path in sorted(paths("a"))]


def test_a_file_whose_name_looks_like_a_glob_is_itself(here):
    odd = here / "a" / "b[1].png"
    os.replace(here / "a" / "0000.png", odd)
    assert paths("a/b[1].png") == [odd.as_posix()]


@pytest.mark.parametrize("given", ["photos.zip", "zip://::photos.zip", "zip://*.png::photos.zip"])
def test_an_archive(here, given):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in ("one.png", "two.png", "read.me"):
            archive.writestr(name, (here / "a" / "0000.png").read_bytes())
    found = paths(given)
    assert found == [
        f"zip://{name}::{here.as_posix()}/photos.zip" for name in ("one.png", "two.png")
    ]
    with fsspec.open(found[0], "rb") as file:
        assert file.read() == (here / "a" / "0000.png").read_bytes()


def test_an_address_of_fsspec():
    store = fsspec.filesystem("memory")
    for name in ("b.png", "a.png", "c.txt"):
        store.pipe_file(f"/bucket/{name}", b"content")
    assert paths("memory://bucket") == ["memory:///bucket/a.png", "memory:///bucket/b.png"]
    assert paths("memory://bucket/b.*") == ["memory:///bucket/b.png"]
    store.pipe_file("/bucket/list.csv", b"path\na.png\n")
    assert paths("memory://bucket/list.csv") == ["memory://bucket/a.png"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_a_table_has_targets_and_masks_and_starts_from_its_own_folder(here, kind, tmp_path):
    table = pd.DataFrame(
        {"path": ["0000.png", "deep/0001.png"], "target": [3.0, None], "mask": ["m.png", ""]}
    )
    if kind == "frame":
        os.chdir("a")
        found = list_images(table)
    else:
        file = here / "a" / f"list.{kind}"
        getattr(table, f"to_{kind}")(file, index=False)
        found = list_images("a/" + file.name)
    expected = names(here / "a", "0000.png", "deep/0001.png")
    assert found["path"].tolist() == expected
    assert found["target"].tolist() == ["3", ""]
    assert found["mask"].tolist() == [*names(here / "a", "m.png"), ""]


def test_an_image_with_two_targets_is_two(here):
    table = pd.DataFrame({"path": ["a/0000.png"] * 3, "target": ["cat", "dog", "cat"]})
    assert list_images(table)["target"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("nowhere.png", FileNotFoundError, "nowhere.png"),
        ("a/*.tif", ValueError, "no image in a/"),
        ("empty", ValueError, "no image in empty"),
        ("bad.csv", ValueError, "no column path; it has file"),
        ("gap.csv", ValueError, "no path in row 2"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(here, given, error, said):
    (here / "empty").mkdir()
    (here / "bad.csv").write_text("file\na/0000.png\n")
    (here / "gap.csv").write_text("path,target\na/0000.png,1\n,2\n")
    with pytest.raises(error, match=said.replace("*", r"\*")):
        list_images(given)


ADDRESSES = [("s3://bucket/a.png", "s3fs"), ("https://host/a.png", "aiohttp"), ("gs://b/", "gcsfs")]


@pytest.mark.parametrize(("address", "package"), ADDRESSES)
@pytest.mark.parametrize("place", ["input", "row", "list", "out"])
def test_a_package_that_is_missing_is_named(address, package, place, model, here, tmp_path):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is there")
    if place == "list" and package == "aiohttp":
        pytest.skip("pandas opens a list at such an address by itself")
    table = pd.DataFrame({"path": [address]})
    inputs = {"input": address, "row": table, "list": f"{address}/list.csv", "out": "a"}[place]
    out = f"{address}/maps" if place == "out" else tmp_path / "maps"
    with pytest.raises(ModuleNotFoundError, match=f"^{address}.* needs a package .*{package}"):
        collect(model, inputs, out, workers=0, progress=False)
    assert not list((tmp_path / "maps").glob("part-*"))


@pytest.mark.parametrize("column", ["path", "mask"])
@pytest.mark.parametrize("path", ["half of a character \ud800", "a\0b"])
def test_a_path_that_no_file_can_have_is_named(path, column):
    rows = [{"path": "a.png", "mask": ""}, {"path": "b.png", "mask": "", column: path}]
    table = pd.DataFrame(rows, dtype=object)
    with pytest.raises(ValueError, match=f"in the column {column}: no file can have the path"):
        list_images(table)


def test_nothing_is_an_error():
    with pytest.raises(ValueError, match="no image in the inputs"):
        list_images([])


def test_absolute_leaves_addresses(here):
    assert absolute("a/b.png") == (here / "a" / "b.png").as_posix()
    assert absolute("s3://bucket/key.png") == "s3://bucket/key.png"
    assert absolute("zip://x.png::a.zip") == f"zip://x.png::{here.as_posix()}/a.zip"
