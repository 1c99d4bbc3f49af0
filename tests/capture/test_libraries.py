"""Networks of other libraries, small and with random weights: the same numbers as their own.

Each is held against what the library itself returns as attention, or against its own forward pass
with `scaled_dot_product_attention` written out.
"""

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import pytest
import torch
import transformers
from helpers import left_as_it_was, redraw
from networks import ALL, HUGGING_FACE, OTHERS, POOLER, THINGS, made, photos_for, tower
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close
from torchvision.transforms import Resize

from rollout.capture.forward_pass import record_attention
from rollout.explanations.explaining import explain
from rollout.maths.token_layout import TokenLayout
from rollout.models.card import describe
from rollout.models.load import wrap_model
from rollout.models.preprocess import apply_transform, default_transform
from rollout.models.readout import read_readout


def answer(output: Any) -> Tensor:
    """(batch, values), whatever the network returned."""
    for field in ("logits", "image_embeds", "pooler_output", "last_hidden_state"):
        output = getattr(output, field, output)
    tensor = output[0] if isinstance(output, tuple) else output
    return tensor if tensor.dim() == 2 else tensor[:, 0]


def score(output: Any) -> Tensor:
    """The similarity of what came out with a text's features, (batch,)."""
    features = answer(output)
    return cosine_similarity(features, torch.linspace(-1, 2, features.shape[1])[None])


def written_out(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Any]:
    """The network with attention written out: each call's probabilities, and what it returned."""
    kept: list[Tensor] = []

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        scores = query @ key.mT * (scale or query.shape[-1] ** -0.5)
        kept.append((scores if attn_mask is None else scores + attn_mask).softmax(dim=-1))
        return kept[-1] @ value

    with patch.object(nn.functional, "scaled_dot_product_attention", attend):
        output = network(images)
    return kept, output


def assert_same(record, attentions: list[Tensor], output: Any) -> None:
    """Attention and its gradients, for all blocks; what pools them comes after."""
    blocks = len(record.blocks)
    assert len(attentions) in (blocks, blocks + len(record.pooling))
    for ours, theirs in zip(record.attentions, attentions[:blocks], strict=True):
        assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad(score(output).sum(), attentions[:blocks])
    for ours, theirs in zip(record.gradients(score=score), expected, strict=True):
        assert theirs.abs().max() > 0
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


# Numbers


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_returns_the_same_attention(name, implementation):
    images, reference = photos_for(name), made(name, "eager")
    output = reference(images, output_attentions=True)
    record = record_attention(made(name, implementation), images)
    assert_same(record, list(output.attentions), output)


@pytest.mark.parametrize("name", OTHERS)
def test_attention_written_out_is_the_same(name):
    network, images = made(name), photos_for(name)
    assert_same(record_attention(network, images), *written_out(network, images))


@pytest.mark.parametrize("name", ["torchvision", "open_clip"])
def test_multi_head_attention_returns_the_same_weights(name):
    network, kept = made(name), []
    asked = {"need_weights": True, "average_attn_weights": False}
    images, modules = photos_for(name), list(network.modules())
    record = record_attention(network, images)
    for module in (one for one in modules if isinstance(one, nn.MultiheadAttention)):
        module.register_forward_pre_hook(lambda _, a, k: (a, k | asked), with_kwargs=True)
        module.register_forward_hook(lambda _, args, output: kept.append(output[1]))
    network(images)
    for ours, theirs in zip(record.attentions, kept, strict=True):
        assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)
    before = record.gradients(score=score)
    again = record_attention(network, images)  # the weights asked for are another code path
    assert_close(again.attentions[1], record.attentions[1], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(again.gradients(score=score), before, strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_what_comes_out_is_bit_identical(name, gradients):
    """To the network with frozen weights: torch adds up in another order for trainable ones."""
    network, images = made(name), photos_for(name)
    record = record_attention(network, images, gradients=gradients)
    network.requires_grad_(False)
    bare = network(images.requires_grad_())  # without a gradient, torch has a shorter way
    assert_close(answer(network(images.detach())), answer(bare), rtol=1e-4, atol=1e-5)
    if "tokens" not in name:
        assert torch.equal(record.logits, answer(bare).detach())


# Models


@pytest.mark.parametrize("name", ALL)
def test_the_layout_and_the_labels_are_found(name):
    model = wrap_model(made(name).train())
    _, layout, classes = ALL[name]
    assert model.layout == layout and model.num_classes == classes
    assert not model.network.training
    if classes and name != "torchvision":
        assert model.labels == tuple(THINGS.values())
    card = describe(model)
    assert card.grid_size == layout.grid_size and card.num_classes == classes
    assert card.image_size == tuple(photos_for(name).shape[2:])


@pytest.mark.parametrize("name", ALL)
def test_it_is_explained_with_nothing_set_and_left_as_it_was(name):
    model, images = wrap_model(made(name)), photos_for(name)
    model.network.train()
    with left_as_it_was(model.network):
        plain = explain(model, images)
        scored = explain(model, images, score=score)
    follows = "gradient_rollout" if ALL[name][2] else "attention_rollout"
    assert plain.method == follows and scored.method == "gradient_rollout"
    for found in (plain, scored):
        assert found.map.shape == (2, *model.layout.grid_size)
        assert (found.map.flatten(1).max(dim=1).values > 0).all()


@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_its_images_one_by_one(name):
    model, images = wrap_model(made(name)), photos_for(name)
    for options in ({"method": "attention_rollout"}, {"score": score}):
        together = explain(model, images, **options).map
        alone = torch.cat([explain(model, images[i : i + 1], **options).map for i in range(2)])
        assert_close(together, alone, rtol=1e-3, atol=1e-4 * alone.max().item())


def test_two_poolers_are_read_one_through_the_other():
    """Of a vector pooled from vectors that are pooled from the tokens."""
    network = made("open_clip, two poolers")
    record = record_attention(network, images := photos_for("open_clip"))
    model = wrap_model(network)
    lower, upper = (one.mean(dim=1) for one in written_out(network, images)[0][2:])
    assert upper.shape == (2, 1, 5) and lower.shape == (2, 5, 25)
    expected = (upper @ lower)[:, 0].detach()
    assert_close(read_readout(model.layout, record), expected, rtol=1e-4, atol=1e-6)


def test_poolers_side_by_side_are_refused():
    parallel = {"attentional_pool": "parallel", "output_dim": 24}
    model = wrap_model(redraw(tower(**POOLER | parallel)()))
    with pytest.raises(ValueError, match="2 attention layers pool the tokens, of which one does"):
        explain(model, photos_for("open_clip"), method="attention_rollout")


def test_a_pooler_of_which_several_vectors_are_read_is_refused():
    network = redraw(tower(**POOLER, pool_type="avg")())
    with pytest.raises(ValueError, match=r"attn_pool.* pools the tokens into 5 vectors, and more"):
        wrap_model(network)


# Preprocessing


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
PHOTO = PHOTO.resize((70, 50), Image.Resampling.BICUBIC)
SIZE = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("name", "processor", "options"),
    [
        ("ViT, pooled", "ViTImageProcessor", {"size": {"height": 32, "width": 48}}),
        ("DINOv3", "DINOv3ViTImageProcessor", {"size": SIZE}),
        ("SigLIP", "SiglipImageProcessor", {"size": SIZE}),
        ("BEiT", "BeitImageProcessor", {"size": {"height": 32, "width": 48}}),
        ("CLIP", "CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SIZE}),
    ],
)
def test_the_default_transform_is_the_published_processor(name, processor, options):
    network, processor = made(name), getattr(transformers, processor)(**options)
    ours = apply_transform(default_transform(network), PHOTO)
    theirs = apply_transform(processor, PHOTO)
    assert ours.shape == theirs.shape == photos_for(name).shape[1:]
    assert (ours - theirs).abs().mean() < 0.02  # two libraries that resize
    (resize,) = (one for one in default_transform(network).transforms if isinstance(one, Resize))
    assert resize.interpolation.value == Image.Resampling(int(processor.resample)).name.lower()
    model = wrap_model(network, transform=processor)
    assert model.mean == pytest.approx(processor.image_mean)
    assert_close(model.images([PHOTO, PHOTO])[1], theirs)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("DeiT", 0.485), ("DINOv2, registers", 0.485), ("BEiT", 0.5), ("open_clip", 0.481)],
)
def test_the_default_transform_normalises_as_in_training(name, mean):
    model = wrap_model(made(name))
    assert model.mean[0] == pytest.approx(mean, abs=1e-3)
    assert model.images(PHOTO).shape[1:] == photos_for(name).shape[1:]


def test_a_processor_of_images_and_texts_is_asked_for_its_images():
    images = transformers.SiglipImageProcessor(size=SIZE)
    model = wrap_model(made("SigLIP"), transform=SimpleNamespace(image_processor=images))
    assert model.transform is images


def test_a_model_of_open_clip_brings_its_own_normalisation():
    with patch("logging.warning"):  # that no weights are loaded
        network = open_clip.create_model("ViT-S-32", pretrained=None, force_image_size=(64, 96))
    model = wrap_model(network.visual)
    assert model.layout == TokenLayout((2, 3), 1, "token")
    assert model.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)


def test_a_timm_network_in_the_hands_of_hugging_face():
    pieces = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": (32, 48)}
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", model_args=pieces, id2label=THINGS
    )
    model = wrap_model(redraw(transformers.TimmWrapperForImageClassification(config)))
    assert model.layout == TokenLayout((2, 3), 1, "token") and model.labels[4] == "thing 4"
    assert explain(model, PHOTO, target="thing 2").target == (2,)
