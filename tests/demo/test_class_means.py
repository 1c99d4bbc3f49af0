"""A classifier of class means: linear, and right where the classes lie apart."""

import numpy as np
import pytest
import timm
import torch
from helpers import left_as_it_was, redraw
from PIL import Image
from torch.testing import assert_close

from rollout import explain, load_model, wrap_model
from rollout.demo.class_means import SEED, with_class_means
from rollout.demo.scenes import CLASSES, SceneDataset, draw_scene


@pytest.fixture(scope="module")
def features():
    """The demo model without its classifier."""
    demo = load_model("demo", device="cpu")
    demo.network.reset_classifier(0)
    return wrap_model(demo.network, transform=demo.transform, name="tower")


def test_the_probabilities_are_those_of_the_distances(features):
    model = with_class_means(features, scenes=2)
    scenes = []
    for number, name in enumerate(CLASSES):
        rng = np.random.default_rng((SEED, number))
        scenes += [draw_scene(rng, (name,)).image for _ in range(2)]
    images = features.images([Image.fromarray(image) for image in scenes])
    with torch.no_grad():
        found, logits = features.network(images).double(), model.network(images)
    means = found.view(len(CLASSES), 2, -1).mean(dim=1)
    apart = (found[:, None] - means).square().sum(dim=2)  # (images, classes)
    spread = (found.view(len(CLASSES), 2, -1) - means[:, None]).square().sum(dim=2).mean()
    expected = (-apart / (2 * spread)).softmax(dim=1)
    assert_close(model.probabilities(logits).double(), expected, rtol=1e-3, atol=1e-5)


def test_it_tells_the_classes_apart_where_the_features_do(features):
    with left_as_it_was(features.network):
        model = with_class_means(features, scenes=5)
    unseen = [SceneDataset(seed=77, length=40, objects=1).scene(number) for number in range(40)]
    images = model.images([Image.fromarray(scene.image) for scene in unseen])
    with torch.no_grad():
        named = [model.label(index) for index in model.network(images).argmax(dim=1).tolist()]
    right = [name in scene.masks for name, scene in zip(named, unseen, strict=True)]
    assert np.mean(right) > 0.9
    shown = explain(model, images[:2], target=["cat", "dog"])
    assert shown.map.shape == (2, *features.layout.grid_size) and (shown.map.amax((1, 2)) > 0).all()


def test_registers_and_a_pool_keep_their_layout():
    network = redraw(timm.create_model("test_vit4", num_classes=0), std=0.1)
    bare = wrap_model(network, name="registers")
    model = with_class_means(bare, scenes=2)
    assert model.layout == bare.layout and model.num_classes == len(CLASSES)
    images = torch.randn(2, 3, 160, 160)
    assert_close(
        explain(model, images, method="attention_rollout").map,
        explain(bare, images, method="attention_rollout").map,
    )


def test_a_network_with_a_classifier_keeps_it():
    with pytest.raises(ValueError, match="demo has a classifier, of 12 classes"):
        with_class_means(load_model("demo", device="cpu"))


def test_one_scene_has_no_spread(features):
    with pytest.raises(ValueError, match="scenes must be at least 2"):
        with_class_means(features, scenes=1)
