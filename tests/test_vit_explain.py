"""The drop-in classes: legacy equal to the published code, otherwise equal to the library."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BAD_SETTINGS, left_as_it_was, redraw
from safetensors import safe_open
from timm.models import VisionTransformer, VisionTransformerDistilled

from rollout import record_attention, wrap_model
from rollout.errors import UnsupportedNetworkError
from rollout.maths.rollout import attention_rollout, gradient_rollout
from rollout.vit_explain import VITAttentionGradRollout, VITAttentionRollout

PUBLISHED = Path(__file__).parent / "data" / "vit_explain.safetensors"
RATIOS = (0.0, 0.5, 0.9, 0.99)
SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def published():
    """Weights, image and masks of the published code, with the geometry of their network."""
    with safe_open(PUBLISHED, "pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        return arrays, json.loads(file.metadata()["network"])


@pytest.fixture
def network(published):
    arrays, geometry = published
    network = VisionTransformer(**geometry).double().eval()
    prefix = "network/"
    state = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    network.load_state_dict(state)
    return network


@pytest.fixture
def image(published):
    return published[0]["image"].double()


def run(rollout, image):
    """Either class, for category 3 where it takes one."""
    return rollout(image, 3) if isinstance(rollout, VITAttentionGradRollout) else rollout(image)


def assert_equal(mask, expected):
    assert mask.shape == expected.shape
    np.testing.assert_allclose(mask, expected, rtol=0, atol=1e-12)


# Legacy: what the published code computes


@pytest.mark.parametrize("discard_ratio", RATIOS)
@pytest.mark.parametrize("head_fusion", ["mean", "min", "max"])
def test_legacy_rollout_is_the_published_one(network, image, published, head_fusion, discard_ratio):
    rollout = VITAttentionRollout(network, "attn_drop", head_fusion, discard_ratio, legacy=True)
    expected = published[0][f"vanilla/{head_fusion}/{discard_ratio}"]
    assert_equal(rollout(image), expected.numpy())


@pytest.mark.parametrize("discard_ratio", RATIOS)
@pytest.mark.parametrize("category", [1, 3])
def test_legacy_gradient_rollout_is_the_published_one(
    network, image, published, category, discard_ratio
):
    rollout = VITAttentionGradRollout(network, "attn_drop", discard_ratio, legacy=True)
    expected = published[0][f"gradient/{category}/{discard_ratio}"]
    assert_equal(rollout(image, category), expected.numpy())


@pytest.mark.parametrize("rollout_class", [VITAttentionRollout, VITAttentionGradRollout])
def test_legacy_in_float32_stays_close(network, image, published, rollout_class):
    mask = run(rollout_class(network.float(), discard_ratio=0.0, legacy=True), image.float())
    name = "vanilla/mean/0.0" if rollout_class is VITAttentionRollout else "gradient/3/0.0"
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, published[0][name].numpy(), rtol=0, atol=1e-4)


def test_legacy_needs_a_class_token_and_a_square_grid():
    distilled = redraw(VisionTransformerDistilled(img_size=32, **SMALL)).eval()
    # 8 x 18 patches: as many as in a square of 12 x 12, which the published code would draw.
    wide = redraw(VisionTransformer(img_size=(64, 144), **SMALL)).eval()
    for network, size in [(distilled, (32, 32)), (wide, (64, 144))]:
        for rollout_class in (VITAttentionRollout, VITAttentionGradRollout):
            with pytest.raises(UnsupportedNetworkError, match="square patch grid.*legacy=False"):
                run(rollout_class(network, legacy=True), torch.randn(1, 3, *size))


@pytest.mark.parametrize("layer_name", ["attn", "mlp", "no_such_layer"])
def test_legacy_needs_modules_that_return_attention(network, image, layer_name):
    with pytest.raises(UnsupportedNetworkError, match=f"{layer_name}.*legacy=False"):
        VITAttentionRollout(network, layer_name, legacy=True)(image)


def test_legacy_gradient_rollout_has_no_head_fusion(network):
    with pytest.raises(ValueError, match="only head_fusion='mean', got 'max'.*legacy=False"):
        VITAttentionGradRollout(network, head_fusion="max", legacy=True)


# Corrected: what the library computes


@pytest.mark.parametrize("discard_ratio", [0.0, 0.9])
@pytest.mark.parametrize("head_fusion", ["mean", "max"])
def test_rollout_is_the_library_s(network, image, head_fusion, discard_ratio):
    attentions = record_attention(network, image).attentions
    full = attention_rollout(attentions, head_fusion=head_fusion, discard_ratio=discard_ratio)
    expected = full[0, 0, 1:].unflatten(0, (8, 8)).numpy()
    mask = VITAttentionRollout(network, "attn_drop", head_fusion, discard_ratio)(image)
    assert_equal(mask, expected / expected.max())


@pytest.mark.parametrize("discard_ratio", [0.0, 0.9])
@pytest.mark.parametrize("head_fusion", ["mean", "max"])
def test_gradient_rollout_is_the_library_s(network, image, head_fusion, discard_ratio):
    record = record_attention(network, image)
    full = gradient_rollout(
        record.attentions, record.gradients(3), head_fusion=head_fusion, discard_ratio=discard_ratio
    )
    expected = full[0, 0, 1:].unflatten(0, (8, 8)).numpy()
    mask = VITAttentionGradRollout(network, "attn_drop", discard_ratio, head_fusion)(image, 3)
    assert_equal(mask, expected / expected.max())


@pytest.mark.parametrize("rollout_class", [VITAttentionRollout, VITAttentionGradRollout])
def test_corrected_differs_from_legacy(network, image, rollout_class):
    corrected = run(rollout_class(network), image)
    legacy = run(rollout_class(network, legacy=True), image)
    assert corrected.max() == legacy.max() == 1
    assert np.abs(corrected - legacy).max() > 0.01


@pytest.mark.parametrize("rollout_class", [VITAttentionRollout, VITAttentionGradRollout])
def test_grid_and_readout_come_from_the_network(rollout_class):
    distilled = redraw(VisionTransformerDistilled(img_size=(32, 40), **SMALL)).eval()
    image = torch.randn(1, 3, 32, 40)
    mask = run(rollout_class(distilled, discard_ratio=0.0), image)
    record = record_attention(distilled, image)
    if rollout_class is VITAttentionRollout:
        full = attention_rollout(record.attentions)
    else:
        full = gradient_rollout(record.attentions, record.gradients(3))
    expected = full[0, :2, 2:].mean(dim=0).unflatten(0, (4, 5)).numpy()
    np.testing.assert_allclose(mask, expected / expected.max(), rtol=0, atol=1e-5)


def test_layer_name_picks_blocks(network, image):
    attentions = record_attention(network, image).attentions
    expected = attention_rollout(attentions[2:3])[0, 0, 1:].unflatten(0, (8, 8)).numpy()
    for layer_name in ("blocks.2.attn", "blocks.2.attn.attn_drop", "2.attn.qkv"):
        mask = VITAttentionRollout(network, layer_name, discard_ratio=0.0)(image)
        assert_equal(mask, expected / expected.max())


def test_layer_name_that_picks_nothing_is_an_error(network, image):
    for rollout_class in (VITAttentionRollout, VITAttentionGradRollout):
        with pytest.raises(ValueError, match="'blocks.2.mlp'.*'blocks.0.attn'.*'attn_drop'"):
            run(rollout_class(network, "blocks.2.mlp"), image)


def test_a_wrapped_model_is_taken_with_its_labels(network, image):
    labels = ["ant", "bee", "cat", "dog", "eel"]
    model = wrap_model(network, transform=lambda picture: torch.zeros(3, 64, 64), labels=labels)
    by_label = VITAttentionGradRollout(model)(image, "dog")
    assert_equal(by_label, VITAttentionGradRollout(network)(image, 3))
    assert_equal(VITAttentionRollout(model)(image), VITAttentionRollout(network)(image))


# Both


BOTH = pytest.mark.parametrize("legacy", [False, True])
EACH_CLASS = pytest.mark.parametrize(
    "rollout_class", [VITAttentionRollout, VITAttentionGradRollout]
)


@BOTH
@EACH_CLASS
def test_a_call_leaves_no_trace_in_the_next(network, image, rollout_class, legacy):
    rollout = rollout_class(network, legacy=legacy)
    first = run(rollout, image)
    run(rollout, image.flip(-1))
    np.testing.assert_array_equal(run(rollout, image), first)


@BOTH
@EACH_CLASS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_gradient_mode_does_not_matter(network, image, rollout_class, legacy, mode):
    rollout = rollout_class(network, legacy=legacy)
    with mode():
        mask = run(rollout, image.clone())
    np.testing.assert_array_equal(mask, run(rollout, image))


@BOTH
@EACH_CLASS
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(network, image, rollout_class, legacy, fails):
    network.blocks[0].attn.fused_attn = False
    network.blocks[1].train()
    network.cls_token.requires_grad_(False)
    network.head.register_forward_hook(lambda *call: 1 / 0 if fails else None)
    outcome = pytest.raises(ZeroDivisionError) if fails else nullcontext()
    with left_as_it_was(network), outcome:
        run(rollout_class(network, legacy=legacy), image)
    assert image.grad is None and not image.requires_grad


@BOTH
@EACH_CLASS
def test_frozen_networks_and_training_mode_give_the_same(network, image, rollout_class, legacy):
    expected = run(rollout_class(network, legacy=legacy), image)
    network.requires_grad_(False).train()
    np.testing.assert_array_equal(run(rollout_class(network, legacy=legacy), image), expected)


@BOTH
def test_a_map_of_zeros_stays_zero(network, image, legacy):
    torch.nn.init.zeros_(network.head.weight)
    mask = VITAttentionGradRollout(network, legacy=legacy)(image, 3)
    np.testing.assert_array_equal(mask, np.zeros((8, 8)))


@BOTH
@EACH_CLASS
def test_a_map_that_is_not_finite_is_an_error(network, image, rollout_class, legacy):
    with pytest.raises(ValueError, match="NaN or infinite"):
        run(rollout_class(network, legacy=legacy), image * torch.nan)


@BOTH
@EACH_CLASS
def test_more_than_one_image_is_refused(network, image, rollout_class, legacy):
    rollout = rollout_class(network, legacy=legacy)
    for images in (image.repeat(2, 1, 1, 1), image[0]):
        with pytest.raises(ValueError, match="one image.*explain"):
            run(rollout, images)


@EACH_CLASS
@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_unknown_settings_are_refused_at_once(network, rollout_class, settings, message):
    with pytest.raises(ValueError, match=message):
        rollout_class(network, **settings)


@BOTH
def test_the_category_must_be_one_of_the_network_s(network, image, legacy):
    rollout = VITAttentionGradRollout(network, legacy=legacy)
    for category in (-1, 5):
        with pytest.raises(ValueError, match=f"must be in .0, 4., got {category}"):
            rollout(image, category)
    with pytest.raises(ValueError, match="no labels to look 'dog' up in"):
        rollout(image, "dog")
    with pytest.raises(TypeError, match="category_index must be one class, got None"):
        rollout(image, None)
    for category in (np.int64(3), torch.tensor(3), torch.tensor([3])):
        np.testing.assert_array_equal(rollout(image, category), rollout(image, 3))
