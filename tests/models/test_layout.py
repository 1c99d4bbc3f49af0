"""Which tokens the classifier reads: as the network says, as gradients show, as images decide."""

from typing import Any

import pytest
import timm
import torch
from helpers import redraw, small_vit
from torch import Tensor, nn
from torch.testing import assert_close

from rollout import UnsupportedNetworkError, attention_rollout, explain, load_model, wrap_model
from rollout.capture.forward_pass import record_attention
from rollout.explanations.recording import record_model
from rollout.maths.fusion import fuse_heads, transition
from rollout.maths.pooling import attention_readout
from rollout.maths.token_layout import TokenLayout
from rollout.models.readout import declared_pooling, measured_pooling, read_readout
from rollout.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))

KINDS: dict[str, dict[str, Any]] = {
    "token": {},
    "avg": {"global_pool": "avg"},
    "all": {"global_pool": "avg", "pool_include_prefix": True},
    "max": {"global_pool": "max"},
}


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("pooling", KINDS)
def test_what_gradients_show_is_what_the_network_says(pooling, registers):
    network = small_vit(**KINDS[pooling], reg_tokens=registers)
    assert declared_pooling(network) == pooling
    assert measured_pooling(record_attention(network, IMAGES)) == pooling


def test_a_distilled_network_reads_both_tokens():
    options = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    network = redraw(timm.create_model("deit_tiny_distilled_patch16_224", **options))
    record = record_attention(network, IMAGES[..., :32])
    assert measured_pooling(record) == declared_pooling(network) == "distilled"


def test_a_classifier_that_is_still_zero_shows_nothing():
    network = small_vit()
    nn.init.zeros_(network.head.weight)
    assert measured_pooling(record_attention(network, IMAGES)) is None


class BesideTheAverage(nn.Module):
    """A classifier on the class token and the patches' average, side by side, as in DINOv2."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = small_vit(num_classes=0, reg_tokens=2)
        self.linear = nn.Linear(48, 7)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.backbone.forward_features(images)
        return self.linear(torch.cat([tokens[:, 0], tokens[:, 3:].mean(dim=1)], dim=1))


def test_a_class_token_beside_the_average_is_told_from_an_average_of_all():
    model = wrap_model(BesideTheAverage(), image_size=(32, 48))
    assert model.layout == TokenLayout((4, 6), 3, "token_avg")
    readout = model.layout.readout
    assert_close(readout[[0, 1, 3]], torch.tensor([0.5, 0, 0.5 / 24]))
    assert explain(model, IMAGES).map.shape == (2, 4, 6)


def test_the_maximum_is_read_where_it_lies_in_each_channel():
    network = small_vit(global_pool="max", reg_tokens=1)
    kept: list[Tensor] = []
    with network.norm.register_forward_hook(lambda *call: kept.append(call[2])):
        record = record_attention(network, IMAGES)
    model = wrap_model(network)
    readout = read_readout(model.layout, record)
    winners = kept[0][:, 2:].argmax(dim=1)  # (batch, channels)
    for image in range(2):
        share = torch.bincount(winners[image], minlength=24) / 24
        assert_close(readout[image], torch.cat([torch.zeros(2), share]))
    network.global_pool = "avgmax"
    mixed = record_model(wrap_model(network), IMAGES).readout(Settings())
    assert_close(mixed, (readout + model.layout.readout) / 2)


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
def test_pooling_attention_is_the_readout(head_fusion):
    network = small_vit(global_pool="map", class_token=True, reg_tokens=1)
    recording = record_model(wrap_model(network), IMAGES)
    assert recording.layout == TokenLayout((4, 6), 2, "map")
    pool, kept = network.attn_pool, []
    with pool.register_forward_pre_hook(lambda _, args: kept.append(args[0])):
        network(IMAGES)
    key = pool.kv(kept[0]).unflatten(2, (2, 3, 8))[:, :, 0].transpose(1, 2)  # (batch, heads, ...)
    query = pool.q(pool.latent).view(1, 3, 1, 8).expand(2, -1, -1, -1)
    attention = (pool.q_norm(query) * pool.scale @ pool.k_norm(key).mT).softmax(dim=-1)
    expected = fuse_heads(attention.detach(), head_fusion)[:, 0]
    expected = expected / expected.sum(dim=1, keepdim=True)
    readout = recording.readout(Settings(head_fusion=head_fusion))
    assert_close(readout[:, -expected.shape[1] :], expected, rtol=1e-4, atol=1e-6)
    assert_close(readout.sum(dim=1), torch.ones(2))
    rolled = attention_rollout(recording.record.attentions, readout=recording.readout(Settings()))
    shown = explain(recording.model, IMAGES, method="attention_rollout").map
    assert_close(shown, recording.layout.to_grid(rolled))


def test_for_a_target_pooling_attention_is_read_where_it_speaks_for_it():
    recording = record_model(wrap_model(small_vit(global_pool="map", class_token=False)), IMAGES)
    first, second = (
        recording.readout(Settings(), "gradient_rollout", torch.tensor([target, target]))
        for target in (1, 2)
    )
    assert_close(first.sum(dim=1), torch.ones(2))
    assert (first >= 0).all() and not torch.allclose(first, second, atol=0.02)
    attention = torch.rand(2, 3, 1, 24)
    nothing = attention_readout(recording.layout, [attention], [-torch.ones(2, 3, 1, 24)])
    assert_close(nothing, attention_readout(recording.layout, [attention], None))


def test_class_attention_is_followed_through_its_blocks():
    """Against full (1 + patches)^2 transitions in which patches keep what they have."""
    layout, attentions = TokenLayout((2, 3), 0, "class_attention"), []
    full = torch.eye(7).expand(2, 7, 7)
    for _ in range(3):
        attention = torch.randn(2, 4, 1, 7).softmax(dim=-1)
        attentions.append(attention)
        fused = torch.zeros(2, 7, 7)
        fused[:, :1] = attention.mean(dim=1)
        full = transition(fused) @ full
    on_patches = full[:, 0, 1:]
    expected = on_patches / on_patches.sum(dim=1, keepdim=True)
    assert_close(attention_readout(layout, attentions, None), expected)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "cait_xxs24_224"]
)
def test_the_user_chooses_the_size_of_the_image(name):
    patch = 14 if "14" in name else 16
    size = (3 * patch, 5 * patch)
    if name.startswith("cait"):
        size = (3 * patch, 3 * patch)
    model = load_model(name, pretrained=False, image_size=size, depth=2)
    assert model.layout.grid_size == (3, size[1] // patch)
    assert explain(model, torch.randn(2, 3, *size)).map.shape == (2, 3, size[1] // patch)


def test_a_dynamic_size_is_read_off_each_image():
    model = wrap_model(small_vit(dynamic_img_size=True))
    for size, grid in [((32, 48), (4, 6)), ((64, 24), (8, 3))]:
        assert explain(model, torch.randn(2, 3, *size), target=1).map.shape == (2, *grid)


class Unreadable(nn.Module):
    """Patches without a convolution and without a word about their size."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.backbone = nn.Linear(192, 24), small_vit(num_classes=7)

    def forward(self, images: Tensor) -> Tensor:
        cut = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (batch, 3, 4, 6, 8, 8)
        tokens = self.patches(cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        return self.backbone.head(self.backbone.blocks(tokens).mean(dim=1))


def test_a_layout_that_cannot_be_read_off_can_be_given():
    network = Unreadable()
    network.backbone.patch_embed = nn.Identity()
    with pytest.raises(UnsupportedNetworkError, match="24 tokens.*Give wrap_model grid_size="):
        wrap_model(network, image_size=(32, 48))
    model = wrap_model(network, image_size=(32, 48), grid_size=(4, 6), num_prefix_tokens=0)
    assert model.layout == TokenLayout((4, 6), 0, "avg")
    assert explain(model, IMAGES, target=2).map.shape == (2, 4, 6)
