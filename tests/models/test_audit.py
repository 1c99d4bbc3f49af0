"""The audit finds a sink that was planted, and its numbers are those of the network itself."""

import numpy as np
import pytest
import torch
from helpers import left_as_it_was, small_vit, vit_with_a_sink
from networks import ALL, made, photos_for
from torch.testing import assert_close

from rollout import audit, describe, explain, load_model, record_attention, wrap_model
from rollout.demo.samples import sample_path

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def wrapped(network):
    return wrap_model(network, image_size=(32, 48), name="small")


@pytest.mark.parametrize("block", [0, 1])
def test_a_planted_sink_is_found_with_its_block_and_head(block):
    model = wrapped(vit_with_a_sink((2, 4), block=block, head=1))
    with left_as_it_was(model.network):
        found = audit(model, IMAGES)
    assert found.shares.shape == (2, 3)
    assert found.patches[:, block].tolist() == [[2, 4]] * 2
    # One head of three sends all it has, the others the uniform share.
    assert_close(found.shares[:, block], torch.full((2,), (1 + 2 / 25) / 3), atol=1e-3, rtol=0)
    assert_close(found.heads[block], torch.tensor([[0.04, 1, 0.04]] * 2), atol=1e-3, rtol=0)
    table = found.table()
    assert table[["image", "block"]].values.tolist() == [[i, b] for i in (0, 1) for b in (1, 2, 3)]
    planted = table[table["block"] == block + 1]
    assert planted["heads"].tolist() == ["2", "2"]
    assert np.allclose(planted["times_uniform"], 25 * planted["share"])
    others = table[table["block"] != block + 1]
    assert np.allclose(others["share"], 1 / 25) and others["heads"].eq("").all()
    assert np.allclose(others["prefix_share"], 1 / 25)


def test_a_sink_in_the_first_block_dominates_the_map():
    for block in (0, 1):
        found = audit(wrapped(vit_with_a_sink((2, 4), block=block)), IMAGES)
        for index in (0, 1):
            sentence = found.dominated(index)
            if block:  # the block below spreads it again
                assert sentence == ""
            else:
                assert sentence.startswith("row 2, column 4 holds ")
                assert sentence.endswith("; it enters in block 1: try start_block=1")


def test_its_map_is_attention_rollout_and_its_sentence_that_of_explain():
    model = wrapped(vit_with_a_sink())
    found, explained = audit(model, IMAGES), explain(model, IMAGES, method="attention_rollout")
    assert_close(found.map, explained.map)
    assert [found.dominated(i) for i in (0, 1)] == [explained.dominated(i) for i in (0, 1)]
    shares = explained.map[:, 2, 4] / explained.map.sum(dim=(1, 2))
    assert_close(found.map_shares[:, 0], shares)


def test_norms_are_those_of_the_tokens_and_values_that_run_through_the_network():
    network = small_vit(reg_tokens=2)
    found = audit(wrapped(network), IMAGES)
    tokens = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(IMAGES))))
    for block, module in enumerate(network.blocks):
        values = module.attn.qkv(module.norm1(tokens))[:, :, -24:]
        for what, norms in ((tokens, found.token_norms), (values, found.value_norms)):
            lengths = what.norm(dim=2)[:, 3:].unflatten(1, (4, 6))  # without the prefix
            for index, (row, column) in enumerate(found.patches[:, block].tolist()):
                median = lengths[index].flatten().median()
                expected = lengths[index, row, column] / median
                assert norms[index, block].item() == pytest.approx(expected.item(), rel=1e-4)
        tokens = module(tokens)


def test_several_images_are_audited_as_each_alone():
    model = wrapped(small_vit())
    both = audit(model, IMAGES)
    for index in (0, 1):
        alone = audit(model, IMAGES[index : index + 1])
        for name in ("patches", "shares", "token_norms", "value_norms", "map_shares", "map"):
            assert_close(getattr(both, name)[index], getattr(alone, name)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_every_library_is_audited_with_its_token_norms(name):
    layout, network, images = ALL[name][1], made(name), photos_for(name)
    model = wrap_model(network, image_size=tuple(images.shape[-2:]))
    with left_as_it_was(network):
        found = audit(model, images)
    for block, attention in enumerate(record_attention(network, images).distributions):
        drawn = attention.mean(dim=(1, 2))[:, layout.num_prefix_tokens :]
        assert_close(found.shares[:, block], drawn.amax(dim=1), rtol=1e-4, atol=1e-6)
    assert found.token_norms.isfinite().all() and (found.token_norms > 0).all()
    assert found.value_norms.isfinite().all()


class Unlisted(torch.nn.Module):
    """Blocks that stand in no list, so that nobody can tell them from other modules."""

    def __init__(self):
        super().__init__()
        vit = small_vit(depth=2)
        self.vit, self.first, self.second = vit, vit.blocks[0], vit.blocks[1]
        del vit.blocks

    def forward(self, images):
        tokens = self.vit._pos_embed(self.vit.patch_embed(images))
        return self.vit.forward_head(self.vit.norm(self.second(self.first(tokens))))


def test_token_norms_that_cannot_be_had_are_nan():
    network = Unlisted().eval()
    found = audit(wrap_model(network, image_size=(32, 48), grid_size=(4, 6)), IMAGES)
    assert found.token_norms.isnan().all() and found.value_norms.isfinite().all()
    assert "nan" in str(found)


def test_hooks_are_gone_also_after_an_error():
    model = wrapped(small_vit())
    with left_as_it_was(model.network), pytest.raises(ValueError, match="was given images"):
        audit(model, torch.randn(1, 3, 31, 48))


def test_a_picture_outlines_each_patch_once_with_its_blocks():
    found = audit(wrapped(vit_with_a_sink()), IMAGES)
    figure = found.plot()
    images, bars = figure.axes[::2], figure.axes[1::2]
    for index in (0, 1):
        distinct = {tuple(patch) for patch in found.patches[index].tolist()}
        assert len(images[index].patches) == len(distinct)
        heights = [bar.get_height() for bar in bars[index].patches]
        assert np.allclose(heights, found.shares[index])
    first = images[0].patches[0]
    assert first.get_xy() == (4 * 8 - 0.5, 2 * 8 - 0.5)
    assert (first.get_width(), first.get_height()) == (8, 8)


def test_the_card_of_a_model_says_what_an_image_shows():
    model = wrapped(vit_with_a_sink())
    card = str(describe(model, IMAGES[:1]))
    assert "block 1 sends 36% to row 2, column 4, 9 times the uniform share" in card
    assert "try start_block=1" in card
    assert "most attention" not in str(describe(model))
    both = describe(model, IMAGES).table()
    assert {"most attention, image 0", "attention rollout, image 1"} <= set(both.index)


def test_what_is_printed_has_a_line_for_each_block_and_a_sentence_for_each_image():
    demo = load_model("demo", device="cpu")
    found = audit(demo, [sample_path("scene_boat_fish"), sample_path("scene_cat_dog")])
    lines = str(found).splitlines()
    assert len(lines) == 2 + 12 + 2
    assert lines[-2].startswith("image 0: row 5, column 4 holds 19% of the map")
    assert lines[-1] == "image 1: no patch stands out"
    assert "<table" in found._repr_html_()
