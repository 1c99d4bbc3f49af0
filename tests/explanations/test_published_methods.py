"""Each method beside rollout against its authors' own code; `make_relevance.py` kept its arrays."""

import json
from pathlib import Path

import pytest
import torch
from open_clip.transformer import VisionTransformer as Tower
from safetensors import safe_open
from timm.models import VisionTransformer
from torch.nn.functional import normalize
from torch.testing import assert_close

from rollout import explain, wrap_model

PUBLISHED = Path(__file__).parents[1] / "data" / "relevance.safetensors"


@pytest.fixture(scope="module")
def published():
    with safe_open(PUBLISHED, "pt") as file:
        arrays = {name: file.get_tensor(name).double() for name in file.keys()}
        return arrays, {name: json.loads(file.metadata()[name]) for name in ("network", "tower")}


def network_of(published, name, make, size):
    arrays, geometry = published
    network = make(**geometry[name]).double().eval()
    state = {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if f"{name}/" in key}
    network.load_state_dict(state)
    return wrap_model(network, image_size=size)


@pytest.fixture(scope="module")
def model(published):
    return network_of(published, "network", VisionTransformer, 28)


@pytest.mark.parametrize("category", [1, 3])
def test_generic_relevance_is_that_of_its_authors(published, model, category):
    found = explain(model, published[0]["image"], method="generic_relevance", target=category)
    expected = published[0][f"generic_relevance/{category}"].float()
    assert_close(found.map[0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("category", [1, 3])
def test_attention_gradcam_is_that_of_its_authors(published, model, category):
    """Which is scaled to [0, 1]."""
    found = explain(model, published[0]["image"], method="attention_gradcam", target=category)
    expected = published[0][f"attention_gradcam/{category}"].float()
    assert len(expected.unique()) > 100
    assert_close(scaled(found.map[0]), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("category", [1, 3])
def test_agcam_is_that_of_its_authors(published, model, category):
    """Which adds the heads up."""
    found = explain(model, published[0]["image"], method="agcam", target=category)
    heads = published[1]["network"]["num_heads"]
    expected = published[0][f"agcam/{category}"].float()
    assert_close(heads * found.map[0], expected, rtol=1e-6, atol=0)


def test_legrad_per_block_is_that_of_its_authors(published):
    """The similarity to a text, as a picture scaled to [0, 1]."""
    tower = network_of(published, "tower", Tower, 32)
    text = published[0]["text"]
    found = explain(
        tower,
        published[0]["picture"],
        method="legrad_per_block",
        score=lambda features: (normalize(features, dim=-1) @ text.T)[:, 0],
    )
    picture = scaled(torch.from_numpy(found.saliency_map()))
    assert_close(picture, published[0]["legrad"].float(), rtol=0, atol=1e-6)


def scaled(relevance):
    return (relevance - relevance.min()) / (relevance.max() - relevance.min())
