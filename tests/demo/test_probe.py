"""The linear probe: it is scikit-learn's logistic regression, and it returns as it was exported."""

import json

import numpy as np
import pytest
import torch
from helpers import left_as_it_was, small_vit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch.testing import assert_close
from torchvision import transforms

from rollout import explain, load_model, wrap_model
from rollout.demo import quality
from rollout.demo.probe import (
    ProbeSettings,
    choose_penalty,
    export_probe,
    fit_probe,
    scene_features,
    with_probe,
)
from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.maths.metrics import mean_average_precision
from rollout.models.foundation import PROBE_WEIGHTS, load_dinov2_scenes


def features_and_classes(scenes=150, channels=7):
    """Features of unequal scales that say something of three classes, and not everything."""
    scales = torch.tensor([0.01, 1, 30, 2, 5, 0.3, 1])[:channels]
    features = torch.randn(scenes, channels)
    noise = torch.randn(scenes, 3)
    present = features @ torch.randn(channels, 3) + 2 * noise > 1
    return features * scales + 4, present


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    resize = [transforms.Resize((32, 64)), transforms.ToTensor()]
    network = small_vit(img_size=(32, 64), num_classes=0)
    return wrap_model(network, transform=transforms.Compose(resize))


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_it_is_logistic_regression_on_standardised_features(penalty):
    features, present = features_and_classes()
    probe = fit_probe(features, present, penalty)
    standardised = ((features - features.mean(0)) / features.std(0)).numpy()
    for index in range(3):
        expected = LogisticRegression(C=1 / (penalty * len(features)), tol=1e-8, max_iter=5000)
        expected.fit(standardised, present[:, index].numpy())
        logits = expected.decision_function(standardised).astype(np.float32)
        assert_close(probe(features)[:, index], torch.from_numpy(logits), rtol=1e-3, atol=1e-3)


def test_mean_average_precision_is_scikit_learns():
    scores, present = torch.randn(40, 5).round(decimals=1), torch.rand(40, 5) > 0.8
    present[:, 3] = False  # nobody has it: it does not count
    expected = [
        average_precision_score(present[:, index].numpy(), scores[:, index].numpy())
        for index in (0, 1, 2, 4)
    ]
    assert mean_average_precision(scores, present).item() == pytest.approx(np.mean(expected))


def test_the_penalty_is_chosen_on_scenes_that_were_held_out():
    """Of many features and few scenes, a weak penalty learns the noise by heart."""
    features = torch.randn(60, 50)
    present = features[:, :2] + torch.randn(60, 2) > 0
    settings = ProbeSettings(scenes=60, penalties=(1e-6, 0.3))
    penalty, marks = choose_penalty(features, present, settings)
    assert penalty == 0.3 and set(marks) == {1e-6, 0.3} and marks[0.3] == max(marks.values())
    changed = torch.cat([features[:48], torch.randn(12, 50)])
    assert choose_penalty(changed, present, settings)[1] != marks


def test_features_are_the_class_token_and_the_average_of_the_patches(backbone):
    scenes = SceneDataset(seed=3, length=5)
    with left_as_it_was(backbone.network):
        features = scene_features(backbone, scenes, batch_size=2)
    images = backbone.images([transforms.ToPILImage()(scenes[number][0]) for number in range(5)])
    with torch.no_grad():
        tokens = backbone.network.forward_features(images)
    scale = tokens.std().item()
    assert_close(features.class_token, tokens[:, 0], rtol=0, atol=0.2 * scale)  # bfloat16
    assert_close(features.patch_mean, tokens[:, 1:].mean(1), rtol=0, atol=0.1 * scale)
    assert torch.equal(features.present, torch.stack([scenes[i][1] for i in range(5)]).bool())


def test_a_model_with_a_probe_answers_with_its_logits(backbone):
    probe = fit_probe(torch.randn(30, 24), torch.rand(30, 12) > 0.7, 0.01)
    with left_as_it_was(backbone.network):
        model = with_probe(backbone, probe)
    images = torch.randn(2, 3, 32, 64)
    explanation = explain(model, images, target=["cat", "ball"])
    with torch.no_grad():
        expected = probe(backbone.network(images))
    assert_close(explanation.logits, expected, rtol=1e-4, atol=1e-4)
    assert model.multi_label and model.labels == CLASSES and model.layout.pooling == "token"
    assert backbone.num_classes == 0


def test_the_export_is_loaded_as_it_was_fitted(tmp_path):
    probe = fit_probe(torch.randn(30, 384), torch.rand(30, 12) > 0.7, 0.01)
    file = tmp_path / "x.safetensors"
    card = export_probe(probe, ProbeSettings(scenes=30), 0.01, {"m": {"scenes": 1.0}}, file)
    network, classes = load_dinov2_scenes(path=file)
    assert classes == CLASSES
    assert_close(network.head.weight.detach(), probe.weight, rtol=0, atol=0)
    assert_close(network.head.bias.detach(), probe.bias, rtol=0, atol=0)
    training = json.loads(card.read_text())["training"]
    assert training["scenes"] == 30 and training["penalty"] == 0.01
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is damaged: its hash is not the one in x.json"):
        load_dinov2_scenes(path=file)


@pytest.fixture(scope="module")
def shipped():
    return load_model("dinov2_scenes", device="cpu")


def test_the_shipped_probe_knows_the_scenes(shipped):
    """On 60 of the 500 scenes that its card tells of."""
    card = json.loads(PROBE_WEIGHTS.with_suffix(".json").read_text())
    assert shipped.multi_label and shipped.labels == CLASSES and shipped.name == "dinov2_scenes"
    assert shipped.layout.pooling == "token" and shipped.layout.grid_size == (16, 16)
    told = card["quality"]["gradient_rollout"]
    assert told["scenes"] == 500 and told["mean_average_precision"] >= 0.92
    scenes = SceneDataset(quality.UNSEEN_SEED, 60, objects=2)
    features = scene_features(shipped, scenes)
    head = shipped.network.head
    logits = features.class_token @ head.weight.detach().T + head.bias.detach()
    found = mean_average_precision(logits, features.present).item()
    assert found == pytest.approx(told["mean_average_precision"], abs=0.06)


def test_maps_of_the_shipped_probe_tell_classes_apart(shipped):
    scenes = SceneDataset(quality.UNSEEN_SEED, 8, objects=2)
    report = quality.assess(shipped, scenes=len(scenes), batch_size=4)
    assert report["peak_on_target"] >= 0.8 and report["target_share"] >= 0.65
