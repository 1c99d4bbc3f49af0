"""A collection in one process: the table is what `explain` says, image after image, fault after
fault; the same call goes on where the last one stopped."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import left_as_it_was, small_vit
from image_files import write_images
from PIL import Image

from rollout import collect, describe, explain, wrap_model
from rollout.collection import folder as folders
from rollout.collection import run as runs
from rollout.collection.folder import Folder
from rollout.collection.shards import read_table
from rollout.collection.summary import contact_sheet
from rollout.collection.table import SCHEMA, extent_of, map_of
from rollout.maths.metrics import mass_on_object, relative_entropy
from rollout.maths.placement import patch_coverage

SIX = {
    "methods": ["gradient_rollout", "attention_rollout"],
    "targets": ["predicted", "*cat*"],
    "head_fusions": ["max"],
    "discard_ratios": [0, 0.5],
}


def gather(model, inputs, out, **options):
    defaults = {"workers": 0, "shard_size": 4, "batch": 3, "progress": False}
    return collect(model, inputs, out, **{**defaults, **options})


# The table


def test_each_row_is_what_explain_says(model, photos, tmp_path):
    with left_as_it_was(model.network):
        collected = gather(model, photos, tmp_path / "maps", **SIX)
    table = collected.table()
    assert (collected.images, collected.rows, collected.errors) == (10, 80, 0)
    assert table["image"].tolist() == [number for number in range(10) for _ in range(8)]
    for row in table.iloc[::7].to_dict("records"):
        expected = explain(
            model,
            row["path"],
            method=row["method"],
            target=row["target"],
            head_fusion=row["head_fusion"],
            discard_ratio=float(np.float32(row["discard_ratio"])),
        )
        values = expected.map[0].numpy()
        np.testing.assert_allclose(map_of(row), values, rtol=2e-3, atol=1e-6)
        assert row["probability"] == pytest.approx(expected.probability.item(), rel=1e-4)
        assert row["label"] == expected.labels[0]
        assert row["predicted"] == expected.logits.argmax().item()
        assert row["entropy"] == pytest.approx(relative_entropy(expected.map).item(), rel=1e-4)
        assert (row["peak_row"], row["peak_column"]) == np.unravel_index(values.argmax(), (4, 6))
        assert row["largest_share"] == pytest.approx(values.max() / values.sum(), rel=1e-4)
        box = expected.boxes()[0][0]
        assert (row["box_left"], row["box_bottom"]) == (box.left, box.bottom)
        assert row["box_share"] == pytest.approx(box.share, rel=1e-3)


def test_a_row_knows_its_file(model, photos, tmp_path):
    table = gather(model, photos, tmp_path / "maps").table()
    for row, path in zip(table.to_dict("records"), sorted(photos.iterdir()), strict=True):
        assert row["path"] == path.as_posix()
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as image:
            assert (row["width"], row["height"]) == image.size
        assert (row["seen_height"], row["seen_width"]) == (32, 48)


def test_the_size_of_a_batch_and_of_a_shard_changes_nothing(model, photos, tmp_path):
    one = gather(model, photos, tmp_path / "one", batch=1, shard_size=1, **SIX).table()
    all = gather(model, photos, tmp_path / "all", batch=32, shard_size=100, **SIX).table()
    assert len(list((tmp_path / "one").glob("part-*"))) == 10
    assert [path.name for path in (tmp_path / "all").glob("part-*")] == ["part-00000.parquet"]
    columns = ["image", "path", "method", "target", "discard_ratio", "predicted"]
    pd.testing.assert_frame_equal(one[columns], all[columns])
    for a, b in zip(one["map"], all["map"], strict=True):
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=2e-2, atol=1e-5)


def test_pandas_and_pyarrow_read_the_folder_as_one_table(model, photos, tmp_path):
    gather(model, photos, tmp_path / "maps", overlays=True)
    table = pd.read_parquet(tmp_path / "maps")
    assert list(table.columns) == SCHEMA.names and len(table) == 10
    assert table["map"][0].dtype == np.float16


def test_one_forward_pass_makes_all_maps(model, photos, tmp_path):
    passes = []
    model.network.register_forward_hook(lambda _, images, out: passes.append(len(images[0])))
    gather(model, photos, tmp_path / "maps", batch=5, shard_size=10, **SIX)
    # black images first: what the settings, the model's methods and the memory allow
    assert passes == [1, 1, 1, 5, 5]


def test_a_batch_that_does_not_fit_into_memory_is_made_smaller(
    model, photos, tmp_path, monkeypatch
):
    passes = []
    model.network.register_forward_hook(lambda _, images, out: passes.append(len(images[0])))
    monkeypatch.setattr(sys.modules[collect.__module__], "MEMORY_LIMIT", 4 * describe(model).memory)
    gather(model, photos, tmp_path / "maps", batch=5, shard_size=10)
    assert passes[-5:] == [2] * 5


def test_targets_and_masks_come_from_a_table(model, photos, tmp_path):
    bright = np.zeros((20, 30), np.uint8)
    bright[:, :15] = 255
    Image.fromarray(bright).save(photos / "left.png")
    table = pd.DataFrame(
        {
            "path": [str(photos / f"000{number}.png") for number in (0, 7, 2, 3)],
            "target": ["dog", "", "5", "no such thing"],
            "mask": [str(photos / "left.png")] * 2 + [""] * 2,
        }
    )
    rows = gather(model, table, tmp_path / "maps").table().to_dict("records")
    assert [row["label"] for row in rows[:3]] == ["dog", rows[1]["predicted_label"], "red fish"]
    assert "unknown class 'no such thing'" in rows[3]["error"]
    mask = torch.zeros(1, 32, 48)
    mask[..., :24] = 1
    coverage = patch_coverage(mask, (4, 6))
    for row in rows[:2]:
        expected = mass_on_object(torch.from_numpy(map_of(row))[None], coverage).item()
        assert row["mask_mass"] == pytest.approx(expected, abs=0.02)
        assert row["mask_peak"] == (row["peak_column"] < 3)
    assert pd.isna(rows[2]["mask_mass"]) and rows[2]["mask_peak"] is None


def test_a_network_without_a_classifier(photos, tmp_path):
    features = wrap_model(small_vit(num_classes=0), name="features", image_size=(32, 48))
    maps = gather(features, photos, tmp_path / "maps", methods=["attention_rollout"])
    table = maps.table()
    assert len(table) == 10 and table["target"].isna().all() and table["entropy"].notna().all()
    with pytest.raises(ValueError, match="no classifier"):
        gather(features, photos, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("which", ["model", "margin_model"])
def test_overlays_are_those_of_explain(which, request, photos, tmp_path):
    model = request.getfixturevalue(which)
    gather(model, photos, tmp_path / "maps", overlays=True, discard_ratios=[0.5])
    written = sorted((tmp_path / "maps" / "_overlays").rglob("*.png"))
    assert [path.parent.name for path in written] == ["00000"] * 4 + ["00001"] * 4 + ["00002"] * 2
    expected = explain(model, photos / "0005.png", discard_ratio=0.5)
    expected.save_overlay(tmp_path / "expected.png")
    [found] = [path for path in written if path.name.startswith("00000005_gradient_rollout_")]
    with Image.open(found) as one, Image.open(tmp_path / "expected.png") as two:
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(two, float), atol=2)


def test_maps_masks_and_boxes_lie_where_the_patches_were_cut(margin_model, photos, tmp_path):
    with Image.open(photos / "0003.png") as photo:
        bright = np.zeros(photo.size[::-1], np.uint8)
    bright[:, -2:] = 255  # what the network sees of it lies in the margin
    Image.fromarray(bright).save(tmp_path / "right.png")
    images = pd.DataFrame({"path": [str(photos / "0003.png")], "mask": [tmp_path / "right.png"]})
    (row,) = gather(margin_model, images, tmp_path / "maps").table().to_dict("records")
    assert extent_of(row) == (0, 0, 32, 48)
    assert row["mask_mass"] < 0.01 and row["mask_peak"] is False
    box = explain(margin_model, photos / "0003.png").boxes()[0][0]
    for side in ("left", "top", "right", "bottom"):
        assert row[f"box_{side}"] == getattr(box, side)
    sheet = contact_sheet(margin_model, pd.DataFrame([row]), "entropy")
    assert sheet.axes[0].images[-1].get_extent() == [-0.5, 47.5, 31.5, -0.5]


# Broken images


def test_broken_images_are_rows_with_an_error(model, tmp_path):
    write_images(tmp_path / "photos", 40, broken=8)
    collected = gather(model, tmp_path / "photos", tmp_path / "maps", **SIX)
    table = collected.table()
    broken = table[table["error"].notna()]
    assert broken["image"].tolist() == list(range(4, 40, 5))
    assert broken["map"].isna().all() and broken["sha256"].notna().all()
    assert (collected.errors, collected.rows) == (8, 8 + 32 * 8)
    assert all(path in error for path, error in zip(broken["path"], broken["error"], strict=True))


def test_images_that_would_take_all_memory_are_rows_with_an_error(model, photos, tmp_path):
    for name, options in (("0002.png", {}), ("0006.tif", {"compression": "tiff_deflate"})):
        Image.new("1", (20_000, 20_000)).save(photos / name, **options)  # 50 kB, 1.2 GB as RGB
    header = (photos / "0006.tif").read_bytes()
    (photos / "0007.png").unlink()
    (photos / "0007.tif").write_bytes(header[: len(header) // 2])
    own = model.transform

    def transform(image):
        if image.size == (30, 99):
            raise MemoryError("Unable to allocate 60 GiB")
        return own(image)

    Image.new("RGB", (30, 99)).save(photos / "0004.png")
    object.__setattr__(model, "transform", transform)
    table = gather(model, photos, tmp_path / "maps", batch=10, shard_size=20).table()
    errors = table.dropna(subset="error").set_index("path")["error"]
    named = {os.path.basename(path): error for path, error in errors.items()}
    assert sorted(named) == ["0002.png", "0004.png", "0006.tif", "0007.tif"]
    assert "more than 178 megapixels" in named["0002.png"] and "178" in named["0006.tif"]
    assert named["0004.png"] == "it does not fit into memory: Unable to allocate 60 GiB"
    assert len(table) == 11 and table["map"].notna().sum() == 7


def test_a_folder_of_images_that_is_removed_during_the_run(model, photos, tmp_path):
    def remove(network, images, output):
        if len(images[0]) > 1:  # one is the black image that tries the settings out
            shutil.rmtree(photos, ignore_errors=True)

    model.network.register_forward_hook(remove)
    table = gather(model, str(photos), tmp_path / "maps", batch=2, shard_size=4).table()
    gone = table["error"].notna()
    assert table["image"].tolist() == list(range(10)) and not gone[:2].any() and gone[4:].all()
    assert table["error"][gone].str.contains("No such file").all()


def test_images_that_vanish_are_rows_with_an_error(model, photos, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path\n" + "".join(f"photos/000{number}.png\n" for number in range(10)))
    shutil.rmtree(photos)
    rows = gather(model, table, tmp_path / "maps").table()
    assert len(rows) == 10 and rows["error"].str.contains("No such file").all()


def test_one_image_that_breaks_the_batch_is_the_only_one_lost(model, photos, tmp_path):
    def refuse(module, images):
        if (images[0].amax(dim=(1, 2, 3)) > 100).any():
            raise RuntimeError("out of memory")

    normal = model.transform
    odd = photos / "0005.png"

    def transform(image):
        tensor = normal(image)
        return tensor + 1000 * (image.size == (30, 99))

    Image.new("RGB", (30, 99)).save(odd)
    model.network.register_forward_pre_hook(refuse)
    object.__setattr__(model, "transform", transform)
    table = gather(model, photos, tmp_path / "maps", batch=10, shard_size=10).table()
    assert table["error"].notna().tolist() == [number == 5 for number in range(10)]
    assert table["error"][5] == "out of memory"


def test_images_in_an_archive_and_at_an_address(model, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, path.name)
    expected = gather(model, photos, tmp_path / "one").table()
    zipped = gather(model, tmp_path / "photos.zip", tmp_path / "two").table()
    store = fsspec.filesystem("memory")
    for path in photos.iterdir():
        store.pipe_file(f"/photos/{path.name}", path.read_bytes())
    stored = gather(model, "memory://photos", "memory://maps")
    assert (stored.images, stored.errors) == (10, 0)
    assert gather(model, "memory://photos", "memory://maps").done == 0
    images = pd.DataFrame({"path": ["memory://photos/0001.png", "memory://photos/none.png"]})
    first, second = gather(model, images, "memory://more").table()["error"]
    assert (
        pd.isna(first) and second == "memory://photos/none.png is not there, or cannot be reached"
    )
    columns = ["image", "sha256", "predicted", "peak_row", "entropy"]
    for table in (zipped, stored.table()):
        pd.testing.assert_frame_equal(table[columns], expected[columns])


# Going on, and refusing


def test_the_same_call_again_does_only_what_is_missing(model, photos, tmp_path):
    out = tmp_path / "maps"
    first = gather(model, photos, out).table()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (out / "part-00001.parquet").unlink()
    (out / "part-00002.parquet").write_bytes(b"half a file")
    again = gather(model, photos, out)
    assert (again.done, again.rows) == (6, 10)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == kept[out / "part-00000.parquet"]
    pd.testing.assert_frame_equal(again.table(), first)
    assert gather(model, photos, out).done == 0


def test_a_collection_from_before_there_were_backward_passes_goes_on(model, photos, tmp_path):
    gather(model, photos, tmp_path / "maps")
    file = tmp_path / "maps" / "_settings.json"
    settings = json.loads(file.read_text())
    assert settings.pop("backward") == "plain"
    file.write_text(json.dumps(settings))
    assert gather(model, photos, tmp_path / "maps").done == 0
    with pytest.raises(ValueError, match='backward was "plain", is "libra"'):
        gather(model, photos, tmp_path / "maps", backward="libra")


def test_maps_by_the_rules_of_libra_are_those_of_explain(model, photos, tmp_path):
    table = gather(model, photos, tmp_path / "maps", backward="libra", targets=["dog"]).table()
    row = table.iloc[4]
    expected = explain(model, row["path"], target="dog", backward="libra").map[0].numpy()
    np.testing.assert_allclose(map_of(row), expected, rtol=2e-3, atol=1e-6)


def test_new_images_are_added_and_old_ones_kept(model, photos, tmp_path):
    gather(model, photos, tmp_path / "maps")
    write_images(photos / "more", 3)
    (photos / "0000.png").unlink()
    collected = gather(model, photos, tmp_path / "maps")
    table = collected.table()
    assert (collected.images, collected.done, collected.errors) == (13, 3, 0)
    assert table["image"].tolist() == list(range(13)) and table["path"].is_unique
    write_images(tmp_path / "others", 3)
    with pytest.raises(ValueError, match="holds other images"):
        gather(model, tmp_path / "others", tmp_path / "maps")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"discard_ratios": [0.9]}, r"discard_ratios was \[0.0\], is \[0.9\]"),
        ({"targets": ["dog"]}, r'targets was \["predicted"\], is \[2\]'),
        ({"shard_size": 5}, "shard_size was 4, is 5"),
        ({"start_block": 1}, "start_block was 0, is 1"),
        ({"backward": "libra"}, 'backward was "plain", is "libra"'),
        ({"methods": ["raw_attention"]}, "methods was"),
        ({"overlays": True}, "overlays was false, is true"),
    ],
)
def test_other_settings_are_refused_with_what_differs(model, photos, tmp_path, change, said):
    gather(model, photos, tmp_path / "maps")
    before = (tmp_path / "maps" / "part-00000.parquet").read_bytes()
    with pytest.raises(ValueError, match=said):
        gather(model, photos, tmp_path / "maps", **change)
    assert (tmp_path / "maps" / "part-00000.parquet").read_bytes() == before


def test_other_weights_and_versions_are_refused(model, photos, tmp_path):
    gather(model, photos, tmp_path / "maps")
    with torch.no_grad():
        model.network.head.bias += 1
    with pytest.raises(ValueError, match="model weights was"):
        gather(model, photos, tmp_path / "maps")
    with torch.no_grad():
        model.network.head.bias -= 1
    file = tmp_path / "maps" / "_settings.json"
    settings = json.loads(file.read_text())
    settings["versions"]["timm"] = "0.1"
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match='versions timm was "0.1", is '):
        gather(model, photos, tmp_path / "maps")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["gradcam"]}, "method must be one of"),
        ({"targets": ["*horse*"]}, "no label of small fits"),
        ({"targets": ["horse"]}, "unknown class 'horse'"),
        ({"targets": []}, "targets is empty; give at least one"),
        ({"discard_ratios": [0.5, 0.5]}, "each once"),
        ({"discard_ratios": [1.0]}, r"discard_ratio must be a number in \[0, 1\)"),
        ({"start_block": 9}, "start_block must be in"),
        (
            {"methods": ["attention_rollout"], "backward": "libra"},
            "attention_rollout takes no gradients",
        ),
        ({"shard_size": 0}, "shard_size must be a whole number from 1"),
        ({"batch": 0}, "batch must be a whole number from 1"),
    ],
)
def test_settings_that_make_no_sense_leave_nothing(model, photos, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        gather(model, photos, tmp_path / "maps", **options)
    assert not (tmp_path / "maps").exists()


# Faults of the machine


def test_a_folder_that_is_being_filled_is_refused(model, photos, tmp_path):
    with Folder.at(tmp_path / "maps").claim():
        with pytest.raises(RuntimeError, match="is being filled by another run"):
            gather(model, photos, tmp_path / "maps")
    assert gather(model, photos, tmp_path / "maps").done == 10


def test_a_full_disk_leaves_whole_parts_and_one_sentence(model, photos, tmp_path, monkeypatch):
    written = []

    def write_bytes(table):
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(table)
        return to_bytes(table)

    to_bytes = folders.to_bytes
    monkeypatch.setattr(folders, "to_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        gather(model, photos, tmp_path / "maps")
    assert [path.name for path in (tmp_path / "maps").glob("*part*")] == ["part-00000.parquet"]
    assert not list((tmp_path / "maps").glob(".*"))
    monkeypatch.undo()
    assert gather(model, photos, tmp_path / "maps").done == 6


def test_a_folder_removed_during_the_run_is_not_built_again_by_halves(
    model, photos, tmp_path, monkeypatch
):
    def remove(*arguments):
        shutil.rmtree(tmp_path / "maps")
        return explain_shard(*arguments)

    explain_shard = runs.explain_shard
    monkeypatch.setattr(runs, "explain_shard", remove)
    with pytest.raises(FileNotFoundError, match="was removed during the run"):
        gather(model, photos, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_half_files_of_a_killed_run_are_swept_and_nothing_else(model, photos, tmp_path):
    (tmp_path / "maps").mkdir()
    for name in (".abcd1234.parquet", ".gitignore", "mine.txt"):
        (tmp_path / "maps" / name).write_text("left")
    gather(model, photos, tmp_path / "maps")
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert ".abcd1234.parquet" not in names and {".gitignore", "mine.txt"} <= names


def test_a_clock_that_jumps_changes_nothing(model, photos, tmp_path, monkeypatch):
    expected = gather(model, photos, tmp_path / "one").table()
    start, calls = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start + (-1) ** next(calls) * 1e6)
    gather(model, photos, tmp_path / "two")
    monkeypatch.undo()
    pd.testing.assert_frame_equal(read_table(tmp_path / "two"), expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written(model, photos, tmp_path):
    (tmp_path / "maps").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        gather(model, photos, tmp_path / "maps")
