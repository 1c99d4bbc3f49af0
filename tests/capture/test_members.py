"""One member of every explainable kind of timm, with its real structure, small and for real."""

from typing import Any

import pytest
import timm
import torch
from helpers import bare_answer, left_as_it_was, redraw, run_unfused
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.recording import record_prepared
from rollout.models.card import describe
from rollout.models.load import wrap_model
from rollout.models.model import Model
from rollout.models.readout import measured_pooling
from rollout.settings import METHODS

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
WIDE = {"img_size": (32, 48), **SMALL}

# name: (options, image size, patch grid, prefix tokens, what the classifier reads)
MEMBERS: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int], int, str]] = {
    "vit_tiny_patch16_224": (WIDE, (32, 48), (2, 3), 1, "token"),
    "vit_base_patch16_gap_224": (WIDE, (32, 48), (2, 3), 0, "avg"),
    "vit_base_patch14_reg4_dinov2": (
        {**SMALL, "img_size": (28, 42)},
        (28, 42),
        (2, 3),
        5,
        "token",
    ),
    "deit3_small_patch16_224": (WIDE, (32, 48), (2, 3), 1, "token"),
    "deit_tiny_distilled_patch16_224": (WIDE, (32, 48), (2, 3), 2, "distilled"),
    "vit_base_patch16_clip_224": (WIDE, (32, 48), (2, 3), 1, "token"),
    "vit_base_patch16_siglip_224": (WIDE, (32, 48), (2, 3), 0, "map"),
    "vit_base_patch16_siglip_gap_224": (WIDE, (32, 48), (2, 3), 0, "avg"),
    "vit_small_patch16_18x2_224": (WIDE, (32, 48), (2, 3), 1, "token"),
    "vit_dpwee_patch16_reg1_gap_256": (
        {**WIDE, "embed_dim": 60},
        (32, 48),
        (2, 3),
        1,
        "avg",
    ),
    "vit_base_r26_s32_224": ({**SMALL, "img_size": 64}, (64, 64), (2, 2), 1, "token"),
    "vit_relpos_small_patch16_224": (WIDE, (32, 48), (2, 3), 0, "avg"),
    "vit_relpos_base_patch16_cls_224": (WIDE, (32, 48), (2, 3), 1, "token"),
    "beit_base_patch16_224": (WIDE, (32, 48), (2, 3), 1, "avg"),
    "eva02_tiny_patch14_224": ({**SMALL, "img_size": (28, 42)}, (28, 42), (2, 3), 1, "avg"),
    "vit_small_patch16_dinov3": (WIDE, (32, 48), (2, 3), 5, "avg"),
    "vit_pe_core_tiny_patch16_384": (WIDE, (32, 48), (2, 3), 1, "map"),
    "naflexvit_base_patch16_gap": (WIDE, (32, 48), (2, 3), 4, "avg"),
    "naflexvit_base_patch16_map": (WIDE, (48, 32), (3, 2), 1, "map"),
    "naflexvit_base_patch16_parfac_gap": (
        {**WIDE, "attn_gated": True},
        (32, 48),
        (2, 3),
        4,
        "avg",
    ),
    "cait_xxs24_224": ({**SMALL, "img_size": 48}, (48, 48), (3, 3), 0, "class_attention"),
    "efficientformer_l1": ({"num_classes": 5}, (224, 224), (7, 7), 0, "avg"),
    "qwen3_vit_88m": ({**SMALL, "img_size": (64, 96)}, (64, 96), (4, 6), 0, "avg"),
    "deepseek_vit_412m": ({**SMALL, "img_size": (28, 42)}, (28, 42), (2, 3), 0, "avg"),
    "gemma4_vit_167m": ({**SMALL, "img_size": (48, 96)}, (48, 96), (3, 6), 0, "avg"),
}


@pytest.fixture(scope="module", params=MEMBERS)
def member(request) -> tuple[Model, Tensor, str]:
    torch.manual_seed(0)
    options, size, *_ = MEMBERS[request.param]
    # The deep convolutional stems go wild with weights that large.
    std = 0.05 if request.param in ("efficientformer_l1", "vit_base_r26_s32_224") else 0.3
    network = redraw(timm.create_model(request.param, **options), std).eval()
    model = wrap_model(network, image_size=size, name=request.param)
    return model, torch.randn(2, 3, *size), request.param


def test_the_layout_is_read_off(member):
    model, images, name = member
    _, _, grid, prefix, pooling = MEMBERS[name]
    record = record_attention(model.network, images)
    layout = model.layout_of(record, images)
    assert (layout.grid_size, layout.num_prefix_tokens, layout.pooling) == (grid, prefix, pooling)
    if pooling not in ("map", "class_attention"):
        assert measured_pooling(record) == pooling or pooling == "avg" and not prefix


def test_logits_are_bit_identical_and_the_network_left_as_it_was(member):
    model, images, _ = member
    with left_as_it_was(model.network):
        record = record_attention(model.network, images)
        record.gradients(1)
    assert torch.equal(record.logits, bare_answer(model.network, images))


def unfused(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """What plain hooks see of the blocks' attention when fused kernels are off, and the logits."""
    inside = [
        module
        for name, module in network.named_modules()
        if name.endswith("attn_drop") and "token_only" not in name and "attn_pool" not in name
    ]
    if not inside:  # efficientformer: nothing between the softmax and the values
        inside = [network.stages[3].blocks[-1].token_mixer]
        return _softmax_of(network, images)
    return run_unfused(network, inside, images)


def _softmax_of(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    kept, plain = [], Tensor.softmax
    try:
        Tensor.softmax = lambda *args, **kwargs: kept.append(plain(*args, **kwargs)) or kept[-1]
        return kept, network(images)
    finally:
        Tensor.softmax = plain


def by_block(parts: list[Tensor], name: str) -> list[Tensor]:
    """Parallel attention: two calls are one block."""
    if "18x2" not in name:
        return parts
    return [torch.cat(pair, dim=1) for pair in zip(parts[::2], parts[1::2], strict=True)]


def test_probabilities_and_gradients_are_those_of_the_unfused_path(member):
    model, images, name = member
    record = record_attention(model.network, images)
    probabilities, logits = unfused(model.network, images)
    gradients = torch.autograd.grad(logits[0, 1] + logits[1, 3], probabilities)
    if "dpwee" in name:  # two softmaxes side by side; tests/test_graph.py holds the difference
        assert len(record.attentions) == len(probabilities)
        return
    expected = by_block([one.detach() for one in probabilities], name)
    for ours, theirs in zip(record.attentions, expected, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5)
    for ours, theirs in zip(record.gradients([1, 3]), by_block(list(gradients), name), strict=True):
        assert theirs.abs().max() > 0
        assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


# Method: of which members it is refused, and in which words.
REFUSED = {
    "agcam": (
        {"vit_dpwee_patch16_reg1_gap_256", "cait_xxs24_224", "efficientformer_l1"},
        "its scores before the softmax",
    ),
    "legrad_per_block": (
        {
            *("vit_base_patch16_siglip_224", "vit_pe_core_tiny_patch16_384", "cait_xxs24_224"),
            *("naflexvit_base_patch16_map", "qwen3_vit_88m", "deepseek_vit_412m"),
        },
        "pools its tokens by attention|each block's own tokens",
    ),
}


def test_maps_of_the_right_shape_and_a_batch_equals_its_images(member):
    model, images, name = member
    together = record_prepared(model, images)
    alone = [record_prepared(model, images[[index]]) for index in range(2)]
    possible = describe(model).methods
    for method in METHODS:
        members, words = REFUSED.get(method, (set(), ""))
        assert bool(possible[method]) == (name in members), method
        if name in members:
            with pytest.raises(UnsupportedNetworkError, match=words):
                together.relevance(method, [1, 3])
            continue
        maps = together.relevance(method, [1, 3])
        assert maps.shape == (2, *MEMBERS[name][2]), method
        assert (maps >= 0).all() and maps.isfinite().all(), method
        # The heads' weights may all be negative: no patch speaks for the class.
        assert maps.max() > 0 or method == "attention_gradcam", method
        for index, target in enumerate([1, 3]):
            expected = alone[index].relevance(method, target)
            close = {"rtol": 0, "atol": 1e-3 * expected.max().item()}
            assert_close(maps[[index]], expected, **close, msg=method)
