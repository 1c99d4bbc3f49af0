"""Models: what they are loaded with, wrapped with, given and asked."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import left_as_it_was, redraw, small_vit
from hostile import ANYTHING, bad_value
from PIL import Image

from rollout import load_model, wrap_model
from rollout.demo import samples
from rollout.models.images import load_image
from rollout.models.model import Model

LABELS = ["cat", "dog", "bird, fowl", "a\nb", "$x^$", "<b>", "tabby cat"]
WORDS = {
    "name": ("name", "model", "checkpoint", "timm", "hub"),
    "checkpoint": ("checkpoint", "path", "file", "no "),
    "network": ("network", "torch.nn.Module"),
    "num_prefix_tokens": ("prefix",),
    "grid_size": ("grid",),
    "image_size": ("image_size", "img_size", "image", "timm cannot make"),
    "labels": ("label",),
    "transform": ("transform",),
    "target": ("target", "class", "label"),
    "index": ("index", "class"),
    "image": ("image", "picture", "tensor", "array", "row", "path", "file"),
    "source": ("image", "picture", "tensor", "array", "row", "path", "file"),
    "name_of_sample": ("sample", "path", "file"),
    "depth": ("timm cannot make",),
    "num_classes": ("timm cannot make", "num_classes", "label"),
}


@pytest.fixture
def model() -> Iterator[Model]:
    network = small_vit()
    with left_as_it_was(network):
        yield wrap_model(network, labels=LABELS)


def test_loading_by_name(fuzz, tmp_path):
    def good() -> dict[str, Any]:
        return {
            "name": "vit_tiny_patch16_224",
            "checkpoint": None,
            "image_size": (32, 48),
            "device": "cpu",
            "labels": ["a", "b", "c"],
            "weights": None,
            "num_classes": 3,
        }

    fixed = {"pretrained": False, "depth": 1, "embed_dim": 24, "num_heads": 3}

    def load(**given: Any) -> Model:
        return load_model(**given, **fixed)

    fuzz("models", 80).swap(load, good, words=WORDS)


def test_wrapping(fuzz):
    network = small_vit()
    transform = timm.data.create_transform((3, 32, 48))

    def good() -> dict[str, Any]:
        return {
            "network": network,
            "transform": transform,
            "labels": LABELS,
            "name": "mine",
            "device": "cpu",
            "image_size": (32, 48),
            "grid_size": (4, 6),
            "num_prefix_tokens": 1,
            "outputs": "multi_label",
            "picture_channels": [0, 1, 2],
        }

    def check(model: Model) -> None:
        assert repr(model) and model.layout.grid_size == (4, 6)

    with left_as_it_was(network):
        fuzz("models", 150).swap(wrap_model, good, words=WORDS, check=check)


def test_transforms_that_make_something_else(fuzz):
    area = fuzz("models", 60)
    network = small_vit()
    area.swap(
        lambda made: wrap_model(network, transform=lambda image: made),
        lambda: {"made": torch.rand(3, 32, 48)},
        words={"made": ("transform", "tensor")},
    )


def test_what_a_model_is_asked(fuzz, model):
    area = fuzz("models", 80)
    area.swap(model.class_index, lambda: {"target": "dog"}, words=WORDS)
    two = lambda: {"target": ["dog", 2], "batch": 2}  # noqa: E731
    area.swap(model.class_indices, two, words=WORDS, keep=["batch"])
    area.swap(model.label, lambda: {"index": 2}, words=WORDS)
    area.swap(model.label, lambda: {"index": {1, 2}}, words=WORDS)
    area.swap(model.images, lambda: {"source": torch.randn(2, 3, 32, 48)}, words=WORDS)
    picture = Image.new("RGB", (40, 30))
    area.swap(model.images, lambda: {"source": [picture, picture]}, words=WORDS)
    array = np.zeros((30, 40, 3), np.uint8)
    area.swap(model.images, lambda: {"source": array}, words=WORDS)
    area.swap(model.probabilities, lambda: {"logits": torch.randn(2, 7)})
    area.swap(model.pictures, lambda: {"images": torch.randn(2, 3, 32, 48)})


def test_images(fuzz):
    area = fuzz("models", 150)
    for picture in ("scene_cat_dog", np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40))):
        area.swap(
            load_image,
            lambda picture=picture: {"source": picture},
            words=WORDS,
            cases=area.cases // 3,
        )


def test_samples(fuzz, model):
    area = fuzz("models", 60)
    words = {"name": ("sample", "path", "file"), "model": ("model",)}
    area.swap(samples.sample_path, lambda: {"name": "scene_cat_dog"}, words=words)
    area.swap(samples.load_masks, lambda: {"name": "scene_cat_dog"}, words=words)
    good = lambda: {"name": "scene_cat_dog", "grid_size": (4, 6)}  # noqa: E731
    area.swap(samples.load_coverage, good, words=words)
    keyed = lambda: {"model": model, "name": "scene_cat_dog", "layout": model.layout}  # noqa: E731
    area.swap(samples.answer_key, keyed, words=words, cases=area.cases // 4)
    area.swap(samples.object_coverage, keyed, words=words, cases=area.cases // 4)
    mask = np.ones((30, 40), bool)
    area.swap(samples.mask_as_seen, lambda: {"model": model, "mask": mask}, words=words)


def test_configurations_of_networks(fuzz):
    """What downloaded configurations say of classes and preprocessing may be anything."""
    area = fuzz("models", 80)
    network = redraw(timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=3))
    own = dict(network.pretrained_cfg)
    good = {
        "input_size": (3, 224, 224),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "label_names": [f"name {index}" for index in range(1000)],
        "label_descriptions": {"name 1": "one"},
    }

    def wrap(**config: Any) -> Model:
        network.pretrained_cfg = {**own, **config}
        return wrap_model(network)

    said = ("preprocessing", "transform", "label")
    area.swap(wrap, lambda: good, words=dict.fromkeys(good, said))


def test_random_pairs_of_anything(fuzz, model):
    """Both at once, whatever they are."""
    area = fuzz("models", 60)
    rng = random.Random(0)
    for _ in range(area.cases):
        said, target = bad_value(rng, ["dog", 1])
        other, source = bad_value(rng, torch.randn(2, 3, 32, 48))
        area.attempt(
            lambda: (model.images(source), model.class_indices(target, 2)),  # noqa: B023
            f"{said}, {other}",
        )
    assert len(ANYTHING) > 50
