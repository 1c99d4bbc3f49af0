"""Collections, grids of notebooks and the explorer's first view, asked for with anything."""

import shutil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import left_as_it_was, small_vit, write_notebook
from image_files import write_images
from test_fuzz_files import damaged

from rollout import collect, explore, wrap_model
from rollout.collection.coco import write_coco
from rollout.collection.combinations import list_combinations
from rollout.collection.gallery import write_gallery
from rollout.collection.notebooks import check_runs
from rollout.collection.shards import read_table
from rollout.explorer.explore import snapshot
from rollout.plots import contact_sheet, figure, maps, shares

LABELS = ["cat", "dog", "bird, fowl", "a\nb", "$x^$", "<b>", "tabby cat"]
PATHS = ("path", "file", "folder", "name", "there is no image", "inputs", "no notebook", "out")
NOT_HERE = ("/", "~", "..", "../../up")  # a collection of all that lies there


@pytest.fixture
def model():
    network = small_vit()
    with left_as_it_was(network):
        yield wrap_model(network, labels=LABELS)


WORDS = {
    "model": ("model", "network"),
    "inputs": (*PATHS, "table"),
    "out": PATHS,
    "methods": ("method",),
    "targets": ("target", "class", "label"),
    "head_fusions": ("head_fusion",),
    "discard_ratios": ("discard_ratio",),
    "query": ("query", "patch"),
    "target": ("target", "class", "label"),
    "rival": ("target", "class", "label", "rival"),
    "image": ("image", "picture", "array", "tensor", "row", "file", "path"),
    "notebook": ("notebook", "path"),
    "notebooks": ("notebook", "path"),
    "folder": PATHS,
    "path": PATHS,
}


def test_collecting(fuzz, model, tmp_path):
    area = fuzz("collections", 120)
    write_images(tmp_path / "photos", 2)

    def good() -> dict[str, Any]:
        return {
            "model": model,
            "inputs": [tmp_path / "photos"],
            "methods": ["gradient_rollout"],
            "targets": ["dog", 1],
            "head_fusions": ["mean"],
            "discard_ratios": [0.5],
            "start_block": 1,
            "end_block": 3,
            "head": 1,
            "query": (1, 2),
            "legacy": False,
            "shard_size": 2,
            "batch": 2,
            "overlays": False,
        }

    def run(**given: Any) -> Any:
        inputs = given["inputs"]
        listed = inputs if isinstance(inputs, list | tuple) else [inputs]
        if any(str(one) in NOT_HERE for one in listed):
            raise ValueError("inputs: not tried")
        shutil.rmtree(tmp_path / "maps", ignore_errors=True)
        return collect(**given, out=tmp_path / "maps", workers=0, progress=False)

    def check(collected: Any) -> None:
        assert len(read_table(tmp_path / "maps")) == collected.rows

    area.swap(run, good, words=WORDS, check=check)


def test_tables_of_images(fuzz, model, tmp_path):
    area = fuzz("collections", 40)
    (path,) = write_images(tmp_path / "photos", 1)

    def run(**row: Any) -> None:
        table = pd.DataFrame({name: [value] for name, value in row.items()}, dtype=object)
        shutil.rmtree(tmp_path / "maps", ignore_errors=True)
        collect(model, table, tmp_path / "maps", workers=0, progress=False)
        assert len(read_table(tmp_path / "maps")) >= 1

    area.swap(run, lambda: {"path": str(path), "target": "dog", "mask": ""}, words=WORDS)


def test_damaged_collections(fuzz, model, tmp_path):
    area = fuzz("collections", 40)
    photos, whole = tmp_path / "photos", tmp_path / "whole"
    write_images(photos, 4)
    options = {"workers": 0, "progress": False, "shard_size": 2}
    collect(model, photos, whole, **options)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    for number in range(area.cases):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        file = folder / area.rng.choice(files)
        said, content = damaged(area.rng, file.read_bytes() or b"x")
        file.write_bytes(content)
        use = [
            lambda: collect(model, photos, folder, **options),  # noqa: B023
            lambda: write_gallery(folder, tmp_path / "page.html", model=model),  # noqa: B023
            lambda: write_coco(folder, tmp_path / "boxes.json"),  # noqa: B023
        ][number % 3]
        area.attempt(use, f"{file.name}, {said}")


def test_galleries_and_boxes(fuzz, model, tmp_path):
    area = fuzz("collections", 40)
    write_images(tmp_path / "photos", 2)
    folder = tmp_path / "maps"
    collect(model, tmp_path / "photos", folder, workers=0, progress=False)

    def page() -> dict[str, Any]:
        return {
            "folder": folder,
            "path": tmp_path / "a.html",
            "sort": "entropy",
            "descending": False,
            "most": 3,
        }

    area.swap(lambda **given: write_gallery(**given, model=model), page, words=WORDS)
    boxes = lambda: {"folder": folder, "path": tmp_path / "a.json", "threshold": 0.5}  # noqa: E731
    area.swap(write_coco, boxes, words=WORDS)


def test_what_notebooks_are_run_with(fuzz, tmp_path):
    area = fuzz("notebooks", 80)
    notebook = write_notebook(tmp_path / "a.ipynb", "output_folder = 'x'\ntarget = 1")
    words = {**WORDS, "grid": ("grid", "parameter"), "parameters": ("parameter",)}
    runs = lambda: {"notebooks": [notebook], "out": "here", "parameters": {"target": 2}}  # noqa: E731
    area.swap(check_runs, runs, words=words)
    grid = lambda: {**runs(), "grid": {"target": [1, 2]}, "parameters": {}, "out": Path("x")}  # noqa: E731
    area.swap(list_combinations, grid, words=words, keep=["out"])


def view() -> dict[str, Any]:
    knobs = {"start_block": 1, "end_block": 3, "head": 1, "query": (1, 2), "legacy": False}
    return {
        "image": torch.randn(1, 3, 32, 48),
        "method": "gradient_rollout",
        "target": "dog",
        "rival": 2,
        "head_fusion": "max",
        "discard_ratio": 0.5,
        "opacity": 0.5,
        "shared_scale": True,
        **knobs,
    }


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_the_explorer(fuzz, model):
    area = fuzz("explorer", 40)
    area.swap(snapshot, lambda: {"model": model, "grid": False, **view()}, words=WORDS)
    folder = {"output_folder": "runs"}
    area.swap(
        lambda **given: explore(**given).close(),
        lambda: {"model": model, **view(), **folder},
        words={**WORDS, "output_folder": PATHS},
        cases=area.cases // 2,
    )
    plt.close("all")


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_plots(fuzz, tmp_path):
    area = fuzz("plots", 30)
    picture = np.random.default_rng(0).random((32, 48, 3))
    one = np.random.default_rng(1).random((4, 6))
    words = {
        "maps": ("map",),
        "saliency_map": ("map",),
        "path": PATHS,
        "titles": ("title",),
        "pictures": ("picture",),
    }
    _, ((ax,),) = figure.new_figure(1, 1, width=2, height=2)
    overlay = lambda: {"picture": picture, "saliency_map": one, "scale": "auto", "opacity": 0.5}  # noqa: E731
    area.swap(lambda **given: maps.plot_overlay(**given, ax=ax), overlay, words=words)
    several = lambda: {"picture": picture, "maps": {"a": one, "b": one}, "columns": 2}  # noqa: E731
    area.swap(lambda **given: maps.plot_maps(**given, unit="share"), several, words=words)
    area.swap(
        contact_sheet.plot_contact_sheet,
        lambda: {"pictures": [picture], "maps": [one], "titles": ["a"], "columns": 2},
        words=words,
    )
    area.swap(
        figure.save_picture, lambda: {"picture": picture, "path": tmp_path / "a.png"}, words=words
    )
    table = pd.DataFrame(one[:2, :2])
    area.swap(shares.plot_share_table, lambda: {"table": table, "unit": "share"}, words=words)
    plt.close("all")
