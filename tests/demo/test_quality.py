"""The quality report: a perfect map gets full marks, a map of the rival none, and order is kept."""

import pytest
import torch
from helpers import small_vit
from torchvision import transforms

from rollout import wrap_model
from rollout.demo import quality
from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.explanations.explanation import explain
from rollout.maths.metrics import patch_coverage


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = small_vit(img_size=(32, 64), num_classes=len(CLASSES))
    resize = [transforms.Resize((32, 64)), transforms.ToTensor()]
    return wrap_model(network, transform=transforms.Compose(resize), labels=CLASSES)


def answer(which, monkeypatch):
    """Explanations that are the answer key itself: of the target, or of its rival."""
    unseen = SceneDataset(quality.UNSEEN_SEED, 5, objects=2)
    scenes = [unseen.scene(number) for number in range(5)]
    started = []

    def known(model, images, *, target, **settings):
        first = 3 * (len(started) // 2)  # two calls for each batch of three
        started.append(first)
        masks = []
        for scene, label in zip(scenes[first : first + 3], target, strict=True):
            rival = next(name for name in scene.masks if name != label)
            masks.append(torch.from_numpy(scene.masks[label if which == "target" else rival]))
        explanation = explain(model, images, target=target)
        coverage = patch_coverage(torch.stack(masks), model.layout.grid_size)
        logits = torch.stack([unseen[first + i][1] for i in range(len(masks))])
        return type(explanation)(**{**vars(explanation), "map": coverage, "logits": logits})

    monkeypatch.setattr(quality, "explain", known)


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
