"""A model's card: true numbers, and the reason for every method that is not possible."""

import pytest
import torch
from helpers import left_as_it_was, small_vit
from torchvision import transforms

from rollout import explain, load_model, wrap_model
from rollout.models.card import describe
from rollout.models.census import sketch
from rollout.settings import METHODS


@pytest.fixture
def model():
    steps = [transforms.Resize((32, 48)), transforms.ToTensor()]
    return wrap_model(small_vit(reg_tokens=2), transform=transforms.Compose(steps), name="mine")


def test_the_card_says_what_the_network_is(model):
    with left_as_it_was(model.network):
        card = describe(model)
    assert (card.name, card.network) == ("mine", "VisionTransformer")
    assert (card.image_size, card.grid_size, card.num_prefix_tokens) == ((32, 48), (4, 6), 3)
    assert (card.num_blocks, card.num_heads, card.num_classes) == (3, 3, 7)
    assert card.pooling == "class token"
    lines = str(card).splitlines()
    assert lines[0] == "mine" and any("4 x 6 (rows x columns)" in line for line in lines)
    assert "<table" in card._repr_html_()


def test_a_method_is_possible_exactly_where_it_works(model):
    for subject in (model, wrap_model(small_vit(num_classes=0), image_size=(32, 48))):
        images, methods = torch.randn(2, 3, 32, 48), describe(subject).methods
        for name in METHODS:
            if not methods[name]:
                explain(subject, images, method=name)
            else:
                with pytest.raises(ValueError, match="score="):
                    explain(subject, images, method=name)
        legacy = {"method": "attention_rollout", "legacy": True}
        with pytest.raises(ValueError, match="one class token .* and a square patch grid"):
            explain(subject, images, **legacy)
        assert methods["legacy=True"]
    demo = load_model("demo", device="cpu")
    assert set(describe(demo).methods.values()) == {""}


def test_memory_grows_with_each_block_by_the_same():
    """What autograd keeps: at least the queries, keys, values and outputs of each block."""
    sizes = [
        describe(wrap_model(small_vit(img_size=64, depth=depth), image_size=64)).memory
        for depth in (2, 4, 6)
    ]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] >= 2 * 4 * (65 * 24 * 4)


def test_an_architecture_is_described_without_weights():
    name = "deit_tiny_distilled_patch16_224"
    network = sketch(name)
    assert all(parameter.is_meta for parameter in network.parameters())
    card = describe(wrap_model(network, name=name))
    assert card.num_prefix_tokens == 2
    assert card.pooling == "mean of class and distillation token"
    real = describe(load_model(name, pretrained=False, device="cpu"))
    assert card.memory == pytest.approx(real.memory, rel=0.2)


def test_an_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="no architecture 'vit_tyni'"):
        sketch("vit_tyni")
