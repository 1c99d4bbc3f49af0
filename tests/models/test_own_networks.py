"""Networks that users write themselves: explained, or refused with what was found in them."""

from typing import Any

import pytest
import torch
import torchvision
import transformers
from helpers import left_as_it_was, redraw
from networks import WIDE, hf
from torch import Tensor, einsum, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.explaining import explain
from rollout.maths.token_layout import TokenLayout
from rollout.models.load import wrap_model

pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """torch's own encoder layers on patches and a class token."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, 24))
        layer = nn.TransformerEncoderLayer(24, 3, 32, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return self.head(self.encoder(tokens)[:, 0])


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_encoder_is_explained(norm_first):
    network = redraw(Encoder(norm_first)).eval()
    kept: list[Tensor] = []
    asked = {"need_weights": True, "average_attn_weights": False}
    record = record_attention(network, IMAGES)
    model = wrap_model(network, image_size=(32, 48))
    assert model.layout == TokenLayout((4, 6), 1, "token") and model.num_classes == 5
    quick = explain(model, IMAGES, method="attention_rollout").map
    for layer in network.encoder.layers:
        layer.self_attn.register_forward_pre_hook(lambda _, a, k: (a, k | asked), with_kwargs=True)
        layer.self_attn.register_forward_hook(lambda _, args, output: kept.append(output[1]))
    network(IMAGES)
    for ours, theirs in zip(record.attentions, kept, strict=True):
        assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)
    assert_close(explain(model, IMAGES, method="attention_rollout").map, quick)


# Attention as an Einstein sum


def by_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT).softmax(dim=-1) @ value).transpose(1, 2)


def by_letters(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("b h i d, b h j d -> b h i j", query, key).softmax(dim=-1)
    return einsum("b h i j, b h j d -> b h i d", attention, value).transpose(1, 2)


def by_dots(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("...id,...jd->...ij", query, key).softmax(dim=-1)
    return einsum("...ij,...jd->...id", attention, value).transpose(1, 2)


def by_another_order(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("bhid,bhjd->bhij", query, key).softmax(dim=-1)
    return einsum("bhij,bjhd->bihd", attention, value.transpose(1, 2))


def by_shared_values(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("bhid,bhjd->bhij", query, key).softmax(dim=-1)
    return einsum("bhij,bjd->bihd", attention, value[:, 0])


class Written(nn.Module):
    """One block without any library."""

    def __init__(self, attend: Any) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 12, 8, 8), nn.Linear(12, 36)
        self.head, self.attend = nn.Linear(12, 7), attend

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        heads = self.qkv(tokens).unflatten(2, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        mixed = self.attend(*heads)  # (batch, tokens, heads, channels)
        return self.head((tokens + mixed.flatten(2)).mean(dim=1))


@pytest.mark.parametrize("attend", [by_letters, by_dots, by_another_order])
def test_an_einstein_sum_is_the_product_that_it_says(attend):
    network, images = redraw(Written(by_product)), IMAGES
    expected = record_attention(network, images)
    network.attend = attend
    record = record_attention(network, images)
    network.requires_grad_(False)
    assert torch.equal(record.logits, network(images))
    assert_close(record.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert_close(record.attentions[0], expected.attentions[0], rtol=1e-4, atol=1e-6)
    largest = expected.gradients(3)[0].abs().max().item()
    assert_close(record.gradients(3)[0], expected.gradients(3)[0], rtol=1e-3, atol=1e-4 * largest)


def test_heads_that_share_their_values_in_an_einstein_sum():
    network = redraw(Written(by_shared_values)).double()
    record = record_attention(network, images := IMAGES.double())
    place, step, scores = (1, 1, 4, 7), 1e-5, []
    for sign in (1, -1):

        def moved(query, key, value, sign=sign):
            attention = (query @ key.mT).softmax(dim=-1)
            attention[place] += sign * step
            return (attention @ value[:, :1]).transpose(1, 2)

        network.attend = moved
        with torch.no_grad():
            scores.append(network(images)[:, 2].sum())
    slope = (scores[0] - scores[1]) / (2 * step)
    assert_close(record.gradients(2)[0][place], slope, rtol=1e-5, atol=1e-8)


# Where the tokens stand


class Cut(nn.Module):
    """Patches without a convolution and without a word about them, and tokens beside them."""

    def __init__(self, before: int = 2, after: int = 0, shuffled: bool = False) -> None:
        super().__init__()
        self.before, self.after, self.shuffled = before, after, shuffled
        self.more, self.patches = nn.Parameter(torch.randn(1, 9, 24)), nn.Linear(192, 24)
        self.qkv, self.head = nn.Linear(24, 72), nn.Linear(24, 5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        cut = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (batch, 3, 4, 6, 8, 8)
        patches = self.patches(cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        if self.shuffled:
            patches = patches[:, torch.randperm(24)]
        more = self.more.expand(len(images), -1, -1)
        tokens = torch.cat([more[:, : self.before], patches, more[:, 9 - self.after :]], dim=1)
        heads = self.qkv(tokens).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        tokens = tokens + scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return {"logits": self.head(tokens[:, 0])}


def test_a_layout_that_nothing_tells_is_given():
    network = redraw(Cut())
    with pytest.raises(UnsupportedNetworkError, match="Give wrap_model grid_size=.rows, columns"):
        wrap_model(network, image_size=(32, 48))
    model = wrap_model(network, image_size=(32, 48), grid_size=(4, 6), num_prefix_tokens=2)
    assert model.layout == TokenLayout((4, 6), 2, "token") and model.num_classes == 5
    assert explain(model, IMAGES).map.shape == (2, 4, 6)


@pytest.mark.parametrize(
    ("network", "given", "message"),
    [
        (Cut(), {"grid_size": (6, 4)}, r"patch at \(0, 3\) reaches token 7, not token 5"),
        (Cut(), {"grid_size": (5, 5)}, "1 prefix tokens and then a grid of 5 x 5 patches"),
        (Cut(1, 4), {"grid_size": (4, 6)}, r"patch at \(0, 0\) reaches token 1, not token 5"),
        (Cut(shuffled=True), {"grid_size": (4, 6)}, "it draws random numbers, so that no two"),
    ],
)
def test_patches_in_another_order_are_refused(network, given, message):
    with left_as_it_was(redraw(network)), pytest.raises(UnsupportedNetworkError, match=message):
        wrap_model(network, image_size=(32, 48), **given)


def test_detection_tokens_behind_the_patches_are_refused():
    options = {**WIDE, "image_size": [32, 48], "num_detection_tokens": 5}
    network = hf("YolosModel", "YolosConfig", options)()
    with pytest.raises(UnsupportedNetworkError, match="reaches token 1, not token 6"):
        wrap_model(network)


def test_a_network_that_masks_at_random_is_refused():
    """At a mask ratio of 0 all patches are there, but shuffled."""
    network = hf("ViTMAEModel", "ViTMAEConfig", WIDE, image_size=32, mask_ratio=0.0)()
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match="draws random"):
        wrap_model(network)


# Refusals


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reader, self.head = nn.LSTM(96, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.reader(images.flatten(1).unflatten(1, (-1, 96)))[0][:, -1])


STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 2]}
WINDOWS = {"image_size": 64, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "window_size": 4}
NONE, GRID = "it ran without any attention", (32, 48)
REFUSED = {
    "perceptron": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 48, 5)), NONE),
    "recurrent": (Recurrent, NONE),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        NONE,
    ),
    "torchvision ResNet": (lambda: torchvision.models.resnet18(weights=None), NONE),
    "torchvision MaxViT": (
        lambda: torchvision.models.MaxVit((64, 64), 8, 2, [8], [1], 4, 0.0),
        "windows of 4 tokens",
    ),
    "ResNet": (
        lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4)
        ),
        NONE,
    ),
    "Swin": (
        hf("SwinForImageClassification", "SwinConfig", {**WINDOWS, "num_heads": [2, 2]}),
        "SwinForImageClassification cannot be rolled out: windows of 16 tokens in 4 blocks",
    ),
    "PVTv2": (
        hf("PvtV2ForImageClassification", "PvtV2Config", {**STAGES, "image_size": 64}),
        "attention of 256 queries to 4 keys .3 blocks.; convolutions mix the tokens",
    ),
    "SegFormer": (
        hf("SegformerForImageClassification", "SegformerConfig", STAGES),
        "attention of 96 queries to 1 keys",
    ),
    "Hiera": (
        hf(
            "HieraForImageClassification",
            "HieraConfig",
            {"embed_dim": 8, "image_size": [64, 64], "depths": [1] * 4, "num_heads": [1] * 4},
        ),
        "windows of 64 tokens in 2 blocks",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_graph_of_tokens_is_refused_with_what_was_found(name):
    make, message = REFUSED[name]
    network = make().train()
    fixed = {"Swin": 64, "PVTv2": 64, "Hiera": 64, "torchvision MaxViT": 64}
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=message):
        wrap_model(network, image_size=fixed.get(name, GRID))


TEXT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
BOTH = {"vision_config": {**WIDE, "image_size": 32}, "text_config": {**TEXT, "vocab_size": 9}}


@pytest.mark.parametrize(
    ("network", "config", "options", "message"),
    [
        ("CLIPModel", "CLIPConfig", BOTH, r"or the part that takes images alone, \.vision_model"),
        ("BertModel", "BertConfig", TEXT, r"BertModel does not take .* give wrap_model the tran"),
    ],
)
def test_a_network_of_other_inputs_is_refused_with_the_cure(network, config, options, message):
    network = hf(network, config, options)()
    with left_as_it_was(network), pytest.raises(ValueError, match=message):
        wrap_model(network)
