"""Where no gradient reaches the attention that is said, and methods without gradients work."""

import copy

import pytest
import torch
from helpers import left_as_it_was, random_attention, small_vit
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.explaining import explain
from rollout.models.load import wrap_model

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")


class Probe(nn.Module):
    """A linear probe on features."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.backbone = how, small_vit(num_classes=0)
        self.head = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return self.head(self.backbone(images))
        features = self.backbone(images)
        if self.how == "detached":
            return self.head(features.detach())
        return self.head((100 * features).round().int().float())


@pytest.mark.parametrize("how", ["detached", "no_grad", "integers"])
def test_a_probe_on_features_without_gradients(how):
    network = Probe(how).eval()
    with left_as_it_was(network):
        model = wrap_model(network)
        assert model.num_classes == 5 and model.layout.pooling == "token"
        found = explain(model, IMAGES, method="attention_rollout")
        expected = explain(wrap_model(network.backbone), IMAGES, method="attention_rollout")
        assert_close(found.map, expected.map)
        with pytest.raises(UnsupportedNetworkError, match="such as attention_rollout"):
            explain(model, IMAGES, target=1)


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        network = copy.deepcopy(small_vit())
    with left_as_it_was(network):
        model = wrap_model(network)
        assert explain(model, IMAGES, method="attention_rollout").map.isfinite().all()
        with pytest.raises(UnsupportedNetworkError, match="inference_mode.*outside of it"):
            explain(model, IMAGES)


def test_a_part_that_is_detached_is_not_taken_for_all():
    """Blocks below a cut have no gradient; those above it do, and speak."""
    network = small_vit()
    network.blocks[1].register_forward_pre_hook(lambda _, tokens: (tokens[0].detach(),))
    record = record_attention(network, IMAGES)
    gradients = record.gradients(2)
    assert not gradients[0].any() and gradients[1].any() and gradients[2].any()


def test_a_target_for_which_nothing_speaks_is_said_in_the_title():
    network = small_vit()
    nn.init.zeros_(network.head.weight)
    for pooling, level in [("token", 0.0), ("avg", 1 / 24)]:
        network.global_pool = pooling
        shown = explain(wrap_model(network), IMAGES, target=1)
        assert_close(shown.map, torch.full((2, 4, 6), level))
        assert shown.title().endswith(", for which no patch speaks")
        assert (
            "no patch"
            not in explain(wrap_model(network), IMAGES, method="attention_rollout").title()
        )
    with torch.no_grad():
        network.head.weight.normal_()
    assert "no patch" not in explain(wrap_model(network), IMAGES, target=1).title()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, 1, 2], "got 3 targets for 2 images"),
        (7, r"target must be in \[0, 6\], got 7"),
        (1.5, "target must be a class index, or one per image; got 1.5"),
        ("dog", "target must be a class index"),
        (True, "target must be a class index"),
        ([[0, 1]], "targets for 2 images"),
    ],
)
def test_a_target_of_the_record_is_named(target, message):
    record = record_attention(small_vit(), IMAGES)
    with pytest.raises(ValueError, match=message):
        record.gradients(target)


def test_a_mask_of_classes_is_the_sum_of_their_logits():
    record = record_attention(small_vit(), IMAGES)
    mask = torch.tensor([[1, 0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0]], dtype=torch.bool)
    found, each = record.gradients(mask), [record.gradients(index) for index in range(7)]
    for block in range(3):
        expected = [
            sum(each[i][block][n] for i in row.nonzero()[:, 0]) for n, row in enumerate(mask)
        ]
        assert_close(found[block], torch.stack(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value):
    model = wrap_model(small_vit())
    with pytest.raises(ValueError, match="score must be a finite number"):
        explain(model, IMAGES, score=lambda logits: logits.sum(dim=1) * value)


@pytest.mark.parametrize("images", [IMAGES[:0], IMAGES.numpy(), [IMAGES], "image.png"])
def test_images_of_another_kind_are_named(images):
    with pytest.raises((TypeError, ValueError), match="images must"):
        record_attention(small_vit(), images)
    with pytest.raises(TypeError, match="network must be a torch.nn.Module, got str"):
        record_attention("demo", IMAGES)  # type: ignore[arg-type]
    assert random_attention().dim() == 4
