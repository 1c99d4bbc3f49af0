"""What the notebooks share: models from parameters, what is kept, start blocks, the rival."""

import json

import pandas as pd
import pytest
import timm
import torch
from helpers import redraw
from PIL import Image
from safetensors.torch import save_file

from rollout import explain, load_model, record_model
from rollout.demo.lesson import Keep, open_subject, relevance_by_start_block, target_and_rival
from rollout.demo.samples import sample_path
from rollout.demo.scenes import CLASSES
from rollout.plots.figure import new_figure
from rollout.settings import Settings

SCENE = "scene_cat_dog"


@pytest.fixture(scope="module")
def demo():
    return load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def recording(demo):
    return record_model(demo, sample_path(SCENE))


def test_a_subject_is_what_the_parameters_say():
    model, image = open_subject("demo", SCENE, checkpoint=None, image_size=None, labels=None)
    assert model.name == "demo" and image == sample_path(SCENE)
    with pytest.raises(FileNotFoundError, match="weights.pt"):
        open_subject("demo", SCENE, checkpoint="weights.pt")
    with pytest.raises(FileNotFoundError, match="no file nothing"):
        open_subject("demo", "nothing", labels=None)


def test_a_network_without_a_classifier_gets_the_class_means(tmp_path, capsys):
    network = redraw(timm.create_model("test_vit4", num_classes=0), std=0.1)
    save_file(network.state_dict(), tmp_path / "weights.safetensors", {"format": "pt"})
    model, image = open_subject("test_vit4", SCENE, checkpoint=tmp_path / "weights.safetensors")
    assert model.labels == CLASSES
    assert "test_vit4 has no classifier" in capsys.readouterr().out
    assert explain(model, image, target="dog").labels == ("dog",)


def test_what_is_kept_is_given_back_and_written_whole(tmp_path, demo):
    keep = Keep(tmp_path / "runs" / "a")
    figure, _ = new_figure(1, 1, width=3, height=2)
    assert keep(figure, "figure.png") is figure
    with Image.open(keep.path("figure.png")) as picture:
        assert picture.size == (300, 200)
    plain = pd.DataFrame({"share": [0.25, 0.5]})
    assert keep(plain, "plain.csv") is plain
    named = keep(plain.set_index(pd.Index(["cat", "dog"], name="target")), "named.csv")
    pd.testing.assert_frame_equal(pd.read_csv(keep.path("plain.csv")), plain)
    pd.testing.assert_frame_equal(pd.read_csv(keep.path("named.csv"), index_col="target"), named)
    assert sorted(file.name for file in keep.path(".").iterdir()) == [
        "figure.png",
        "named.csv",
        "plain.csv",
    ]


def test_what_the_readme_shows_has_its_maps_beside_it(tmp_path, demo):
    keep, explanation = Keep(tmp_path), explain(demo, sample_path(SCENE), target="dog")
    keep.overlay_for_readme(explanation, "dog.png", model="demo", image=SCENE)
    figure = keep.figure_for_readme(
        explanation.plot(), "both.png", {"dog": explanation}, model="demo", image=SCENE
    )
    assert figure.axes
    for name in ("dog", "both"):
        (panel,) = json.loads((tmp_path / "readme" / f"{name}.json").read_text())["panels"]
        assert panel["explain"]["target"] == demo.class_index("dog")
        assert (tmp_path / "readme" / f"{name}.png").is_file()


@pytest.mark.parametrize("method", ["attention_rollout", "gradient_rollout", "raw_attention"])
def test_maps_by_start_block_are_those_of_explain(recording, demo, method):
    settings = Settings(head_fusion="max", discard_ratio=0.5)
    maps = relevance_by_start_block(recording, method, "dog", settings)
    assert list(maps) == [f"from block {block} up" for block in (6, 5, 4, 3, 2, 1)]
    knobs = {"target": "dog", "method": method, "head_fusion": "max", "discard_ratio": 0.5}
    for start in (5, 2, 0):
        found = maps[f"from block {start + 1} up"]
        expected = explain(demo, sample_path(SCENE), start_block=start, **knobs).map[0]
        torch.testing.assert_close(torch.from_numpy(found), expected)


def test_the_rival_is_the_likeliest_other_class(recording, demo):
    cat, dog, fish = (demo.class_index(name) for name in ("cat", "dog", "fish"))
    assert target_and_rival(recording) == (cat, dog)
    assert target_and_rival(recording, "dog") == (dog, cat)
    assert target_and_rival(recording, "fish") == (fish, cat)
    assert target_and_rival(recording, cat, "fish") == (cat, fish)
    with pytest.raises(ValueError, match="unknown class 'cow'"):
        target_and_rival(recording, "cow")
