"""The quality report: a perfect map gets full marks, a map of the rival none, and order is kept."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import small_vit
from PIL import Image
from torchvision import transforms

from rollout import explain, wrap_model
from rollout.demo import quality
from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.maths.metrics import peak_on_object
from rollout.maths.placement import patch_coverage


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = small_vit(img_size=(32, 64), num_classes=len(CLASSES))
    resize = [transforms.Resize((32, 64)), transforms.ToTensor()]
    return wrap_model(network, transform=transforms.Compose(resize), labels=CLASSES)


class Known:
    """A recording whose maps are the answer key itself: of the target, or of its rival."""

    def __init__(self, scenes, model, which):
        self.scenes, self.model, self.which = scenes, model, which
        self.layout = model.layout
        self.record = SimpleNamespace(logits=torch.stack([scene.labels for scene in scenes]))

    def relevance(self, method, target, settings):
        masks = []
        for scene, label in zip(self.scenes, target, strict=True):
            rival = next(name for name in scene.masks if name != label)
            masks.append(torch.from_numpy(scene.masks[label if self.which == "target" else rival]))
        return patch_coverage(torch.stack(masks), self.layout.grid_size)


def answer(which, monkeypatch):
    unseen = SceneDataset(quality.UNSEEN_SEED, 5, objects=2)
    left = [unseen.scene(number) for number in range(5)]

    def known(model, images, *, gradients):
        scenes = [left.pop(0) for _ in images]
        assert all(np.array_equal(a, b.image) for a, b in zip(images, scenes, strict=True))
        return Known(scenes, model, which)

    monkeypatch.setattr(quality, "record_model", known)


def test_the_answer_key_itself_gets_full_marks(model, monkeypatch):
    answer("target", monkeypatch)
    report = quality.assess(model, scenes=5, batch_size=3)
    assert report["scenes"] == 5
    for measure in ("top_logit_present", "mean_average_precision", "peak_on_target"):
        assert report[measure] == 1
    assert report["map_average_precision"] == 1
    assert report["target_share"] > 0.97  # objects may share a patch


def test_the_rivals_key_gets_none(model, monkeypatch):
    answer("rival", monkeypatch)
    report = quality.assess(model, scenes=5, batch_size=3)
    assert report["peak_on_target"] <= 0.1
    assert report["target_share"] < 0.03


def test_a_real_report_is_made_of_shares(model):
    report = quality.assess(model, scenes=4, batch_size=3, method="attention_rollout")
    shares = [value for name, value in report.items() if name not in ("scenes", "seed")]
    assert len(shares) == 5 and all(0 <= share <= 1 for share in shares)


def test_methods_together_are_marked_as_each_alone(model):
    methods = ["gradient_rollout", "attention_rollout", "raw_attention"]
    together = quality.assess_methods(model, methods, scenes=4, batch_size=3, discard_ratio=0.5)
    for method in methods:
        alone = quality.assess(model, scenes=4, batch_size=4, method=method, discard_ratio=0.5)
        assert together[method] == pytest.approx(alone, abs=2e-4), method


def test_the_mark_of_one_scene_is_its_maps_mark(model):
    scene = SceneDataset(quality.UNSEEN_SEED, 1, objects=2).scene(0)
    image = Image.fromarray(scene.image)
    peaks = []
    for label, mask in scene.masks.items():
        explanation = explain(model, image, target=label)
        coverage = patch_coverage(torch.from_numpy(mask)[None], model.layout.grid_size)
        peaks.append(peak_on_object(explanation.map, coverage).item())
    assert quality.assess(model, scenes=1)["peak_on_target"] == sum(peaks) / 2
