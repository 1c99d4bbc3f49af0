"""Where one patch dominates a map, it is said beside the map, with what helps."""

import numpy as np
import pytest
import torch
from helpers import small_vit, vit_with_a_sink
from PIL import Image

from rollout import explain, sweep, wrap_model
from rollout.explanations.kept_maps import KeptMaps
from rollout.explanations.recording import record_model
from rollout.settings import Settings

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def wrapped(network):
    return wrap_model(network, image_size=(32, 48), name="small")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wrapped(vit_with_a_sink((2, 4)))


def test_the_sentence_says_where_how_much_and_what_helps(model):
    found = explain(model, IMAGES, method="attention_rollout")
    for index in (0, 1):
        values = found.map[index]
        share, ratio = values.max() / values.sum(), values.max() / values.flatten().median()
        assert values.argmax() == 2 * 6 + 4
        assert found.dominated(index) == (
            f"row 2, column 4 holds {share:.0%} of the map, {ratio:.0f} times the median; it "
            "enters in block 1: try start_block=1"
        )
    helped = explain(model, IMAGES, method="attention_rollout", start_block=1)
    assert helped.dominated(0) == helped.dominated(1) == ""
    assert (helped.map.amax(dim=(1, 2)) < 0.5 * found.map.amax(dim=(1, 2))).all()


def test_blocks_count_from_the_networks_first_also_where_blocks_are_left_out():
    model = wrapped(vit_with_a_sink((0, 3), block=1))
    found = explain(model, IMAGES, method="attention_rollout", start_block=1)
    assert found.dominated().endswith("it enters in block 2: try start_block=2")
    last = explain(model, IMAGES, method="attention_rollout", start_block=1, end_block=2)
    assert last.dominated().endswith("it enters in block 2")  # no block is left without it


def test_a_head_alone_is_asked_about_what_it_draws_itself(model):
    assert (
        "enters in block 1"
        in explain(model, IMAGES, method="attention_rollout", head=1).dominated()
    )
    other = explain(model, IMAGES, method="attention_rollout", head=0)
    assert other.dominated() == ""


def test_a_method_that_reads_one_block_gets_no_cure():
    model = wrapped(vit_with_a_sink(block=2))
    found = explain(model, IMAGES, method="raw_attention").dominated()
    assert found.startswith("row 2, column 4 holds") and "block" not in found


def test_a_patch_that_is_traced_on_purpose_is_no_news(model):
    assert explain(model, IMAGES, method="attention_rollout", query=(0, 0)).dominated() == ""


def test_nothing_is_said_of_other_maps():
    found = explain(wrapped(small_vit()), IMAGES, method="attention_flow")
    assert [found.dominated(index) for index in (0, 1)] == ["", ""]
    assert len(found.dominance) == 2


def test_kept_maps_say_the_same(model):
    kept = KeptMaps(record_model(model, IMAGES[:1]))
    for method in ("attention_rollout", "gradient_rollout", "generic_relevance", "legrad"):
        for settings in (Settings(), Settings("max", 0.5), Settings(start_block=1)):
            knobs = {name: getattr(settings, name) for name in Settings.__dataclass_fields__}
            said = explain(model, IMAGES[:1], method=method, target=2, **knobs).dominated()
            found = kept.dominance(method, 2, settings)
            assert str(found or "") == said


def test_the_figure_boxes_the_patch_says_its_value_and_the_sentence(model, tmp_path):
    found = explain(model, IMAGES, method="attention_rollout")
    before = found.map.clone()
    figure = found.plot()
    overlay = figure.axes[1]
    words = [text.get_text().replace("\n", " ") for text in overlay.texts]
    assert words == [f"{found.map[0].max():.2g}", found.dominated(0)]
    assert overlay.patches[0].get_xy() == (4 * 8 - 0.5, 2 * 8 - 0.5)
    rest = np.sort(found.map[0].flatten())[-2]
    assert overlay.images[1].get_clim() == (0, rest)
    assert overlay.images[1].get_array().max() == rest
    assert torch.equal(found.map, before)  # the eye's scale is never in the numbers
    largest = found.plot(scale="max").axes[1]
    assert largest.images[1].get_clim() == (0, found.map[0].max().item())
    assert not largest.patches
    with Image.open(found.save(tmp_path / "a.png", scale="max")) as one:
        with Image.open(found.save(tmp_path / "b.png")) as other:
            assert one.size != other.size or one.tobytes() != other.tobytes()


def test_a_sweep_over_first_blocks_has_the_maps_of_explain(model):
    image = IMAGES[:1]
    axes = {"head_fusions": ["mean", "max"], "discard_ratios": [0.5, 0.0], "targets": [3, 1]}
    table = sweep(model, image, start_blocks=[2, 0], **axes)
    assert len(table) == 2 * 2 * 2 * 2 * 2
    for cell in table.itertuples():
        settings = {name: getattr(cell, name) for name in ("head_fusion", "discard_ratio")}
        expected = explain(
            model,
            image,
            method=cell.method,
            target=cell.target,
            start_block=cell.start_block,
            **settings,
        )
        np.testing.assert_allclose(cell.relevance, expected.map[0], rtol=1e-5, atol=1e-8)
    whole = table[table.discard_ratio == 0]
    assert np.allclose(whole.rank_correlation.dropna(), 1)
    one = sweep(model, image, start_block=2, **axes)
    assert one.start_block.eq(2).all()
    same = table[table.start_block == 2].reset_index(drop=True)
    assert all(np.array_equal(a, b) for a, b in zip(one.relevance, same.relevance, strict=True))


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({"start_blocks": [0, 3]}, r"start_block must be in \[0, 2\] for 3 blocks, got 3"),
        ({"start_blocks": [1, 1]}, "start_blocks has 1 twice"),
        ({"start_blocks": []}, "start_blocks is empty"),
        ({"start_blocks": 1}, "start_blocks must be a list, got 1"),
        ({"start_blocks": [0, 1], "start_block": 1}, "give start_block or start_blocks, not both"),
    ],
)
def test_first_blocks_that_make_no_sense_are_named(model, starts, message):
    with pytest.raises(ValueError, match=message):
        sweep(model, IMAGES[:1], **starts)
