"""Some patches only: as if the others were hidden from attention, and nothing is left behind."""

import pytest
import timm
import torch
from helpers import bare_answer, condition, left_as_it_was, redraw, small_vit
from networks import made, photos_for
from torch import nn
from torch.testing import assert_close

from rollout import UnsupportedNetworkError, record_attention
from rollout.capture.kept_tokens import answer, answer_to_patches, block_names

PLACE = {"block": "blocks.0", "tokens": 25, "prefix": 1}


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 48)


def some_patches(count):
    return torch.stack([torch.randperm(24)[:count].sort().values for _ in range(2)])


@pytest.mark.parametrize("count", [0, 1, 7, 23])
def test_dropped_patches_are_as_good_as_hidden_from_all_attention(images, count):
    """The other authority: timm's own mask, which lets no token look at what is dropped."""
    network, kept = small_vit(), some_patches(count)
    hidden = torch.ones(2, 25, dtype=torch.bool)
    hidden[:, 0] = False
    hidden.scatter_(1, kept + 1, False)
    mask = torch.zeros(2, 1, 1, 25).masked_fill(hidden[:, None, None], -torch.inf)
    with torch.no_grad():
        expected = network(images, attn_mask=mask.expand(-1, -1, 25, -1))
    found = answer_to_patches(network, images, kept, **PLACE)
    assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_an_average_is_taken_over_what_is_there(images):
    network = small_vit(global_pool="avg", class_token=False)
    kept = some_patches(9)
    place = {"block": "blocks.0", "tokens": 24, "prefix": 0}
    with torch.no_grad():
        tokens = network._pos_embed(network.patch_embed(images))
        left = torch.stack([one[own] for one, own in zip(tokens, kept, strict=True)])
        expected = network.forward_head(network.norm(network.blocks(left)))
    found = answer_to_patches(network, images, kept, **place)
    assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_all_patches_give_the_networks_own_answer(images):
    network = small_vit()
    expected = bare_answer(network, images)
    assert torch.equal(answer(network, images), expected)
    whole = torch.arange(24).expand(2, -1)
    assert_close(answer_to_patches(network, images, whole, **PLACE), expected)


def test_nothing_is_left_behind(images):
    network = small_vit().train()
    with left_as_it_was(network):
        answer_to_patches(network, images, some_patches(5), **PLACE)
    before = condition(network)
    with pytest.raises(UnsupportedNetworkError, match="does not take"):
        answer_to_patches(network, images, some_patches(5), block="blocks.0", tokens=9, prefix=1)
    assert condition(network) == before


@pytest.mark.parametrize("name", ["ViT", "DINOv2", "torchvision", "open_clip"])
def test_blocks_are_found_in_other_libraries(name):
    network, images = made(name), photos_for(name)
    record = record_attention(network, images)
    names = block_names(network, record)
    assert len(names) == len(set(names)) == len(record.blocks) == 2
    kept = torch.arange(5).expand(2, -1)
    tokens = record.num_tokens
    found = answer_to_patches(network, images, kept, block=names[0], tokens=tokens, prefix=1)
    assert found.shape == record.logits.shape and (found - record.logits).abs().max() > 1e-3


def test_what_cannot_lose_tokens_is_refused():
    network = redraw(timm.create_model("beit_base_patch16_224", depth=2, img_size=32)).eval()
    place = {"block": "blocks.0", "tokens": 5, "prefix": 1}
    with pytest.raises(UnsupportedNetworkError, match="cannot go on with fewer tokens"):
        answer_to_patches(network, torch.randn(2, 3, 32, 32), torch.tensor([[0], [1]]), **place)


class Rolled(nn.Module):
    """Runs one block twice."""

    def __init__(self):
        super().__init__()
        self.inner = small_vit(depth=1)
        self.inner.blocks = nn.Sequential(self.inner.blocks[0], self.inner.blocks[0])

    def forward(self, images):
        return self.inner(images)


def test_a_block_that_runs_twice_is_refused(images):
    place = {"block": "inner.blocks.0", "tokens": 25, "prefix": 1}
    with pytest.raises(UnsupportedNetworkError, match="does not take|2 times"):
        answer_to_patches(Rolled(), images, some_patches(5), **place)
