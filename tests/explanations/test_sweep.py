"""The sweep: each cell is what `explain` gives, one pass serves them all, and what is refused."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from helpers import random_attention, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from rollout import attention_rollout, explain, gradient_rollout, load_model, sweep, wrap_model
from rollout.demo.samples import load_coverage, object_coverage, sample_path
from rollout.demo.scene_sweeps import sweep_scenes
from rollout.explanations.recording import record_model
from rollout.maths import block_sequence as sequences
from rollout.maths import fused_block, order_statistics
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.evidence import fused_last_first
from rollout.maths.fusion import discard_each, discard_lowest, fuse_head_groups, fuse_heads
from rollout.maths.metrics import (
    mass_on_object,
    match_entropy,
    peak_on_object,
    rank_correlation,
    relative_entropy,
)
from rollout.maths.rollout import chain
from rollout.settings import METHODS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sweep.py"
LABELS = ("cat", "dog", "bird", "fish", "car", "boat", "house")
IMAGE = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
FUSIONS = ["mean", "max", "min"]
RATIOS = [0.9, 0.0, 0.35]


def wrap(network, size):
    return wrap_model(
        network,
        transform=transforms.Compose([transforms.Resize(size), transforms.ToTensor()]),
        labels=LABELS,
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wrap(small_vit(), (32, 48))


def assert_cells_are_explanations(table, model, image, **options):
    for cell in table.itertuples():
        expected = explain(
            model,
            image,
            method=cell.method,
            target=cell.target,
            head_fusion=cell.head_fusion,
            discard_ratio=cell.discard_ratio,
            **options,
        ).map[0]
        assert cell.relevance.dtype == np.float32
        assert_close(torch.from_numpy(cell.relevance), expected, rtol=1e-5, atol=1e-8)


def test_each_cell_is_the_explanation_with_its_settings(model):
    axes = {"methods": list(METHODS), "head_fusions": FUSIONS, "discard_ratios": RATIOS}
    table = sweep(model, IMAGE, targets=["dog", 5], **axes)
    assert len(table) == len(METHODS) * 3 * 3 * 2
    for name, values in axes.items():
        assert table[name.removesuffix("s")].unique().tolist() == values
    assert table[["target", "label"]].drop_duplicates().values.tolist() == [[1, "dog"], [5, "boat"]]
    assert_cells_are_explanations(table, model, IMAGE)


@pytest.mark.parametrize(
    "options", [{"start_block": 1, "end_block": 2}, {"head": 2}, {"query": (3, 1)}], ids=str
)
def test_blocks_head_and_query_hold_for_every_cell(model, options):
    table = sweep(model, IMAGE, discard_ratios=RATIOS, targets=[3], **options)
    assert_cells_are_explanations(table, model, IMAGE, **options)


def test_a_set_of_classes_is_one_target(model):
    targets = [{"dog", "cat"}, 2, "?o*"]  # the last: dog, boat and house
    coverage = {"cat or dog": torch.ones(4, 6)}
    table = sweep(model, IMAGE, targets=targets, discard_ratios=RATIOS, coverage=coverage)
    chosen = [frozenset({0, 1}), 2, frozenset({1, 5, 6})]
    rows = table[table["method"] == "gradient_rollout"].drop_duplicates("label")
    assert rows["target"].tolist() == chosen
    assert rows["label"].tolist() == ["cat or dog", "bird", "dog or boat or house"]
    measured = table[table["target_mass"].notna()]  # of a map of zeros nothing is
    assert set(measured["label"]) == {"cat or dog"}
    assert_cells_are_explanations(table, model, IMAGE)


def test_the_published_arithmetic_is_swept_too():
    square = wrap(small_vit(img_size=(32, 32)), (32, 32))
    image, ratios = IMAGE[..., :32], [0.5, 0.9]
    table = sweep(square, image, head_fusions=["mean"], discard_ratios=ratios, legacy=True)
    assert_cells_are_explanations(table, square, image, legacy=True)


def test_each_cell_of_a_sample_is_its_explanation():
    demo, image = load_model("demo", device="cpu"), sample_path("scene_cat_dog")
    coverage = load_coverage(image, demo.layout.grid_size)
    table = sweep(demo, image, targets=["cat", "dog"], discard_ratios=[0, 0.9], coverage=coverage)
    assert_cells_are_explanations(table, demo, image)
    own = table[(table.method == "gradient_rollout") & (table.head_fusion == "mean")]
    assert (own.target_mass > 0.5).all() and (own.peak_on_target == 1).all()


@contextmanager
def counted_passes(model):
    """The forward passes (images each) and backward passes that happen inside."""
    forward, backward, grad = [], [], torch.autograd.grad
    hook = model.network.register_forward_hook(lambda *call: forward.append(len(call[-1])))
    with hook, patch("torch.autograd.grad") as counter:
        counter.side_effect = lambda *args, **options: backward.append(1) or grad(*args, **options)
        yield forward, backward


def test_one_forward_pass_and_one_backward_pass_per_target(model):
    with counted_passes(model) as (forward, backward):
        sweep(model, IMAGE, targets=[0, 4, 2], discard_ratios=RATIOS)
    assert (len(forward), len(backward)) == (1, 3)


def test_a_recording_is_not_run_again(model):
    recording = record_model(model, IMAGE)
    recording.backward(4)
    with counted_passes(model) as (forward, backward):
        table = sweep(model, recording, targets=[4, 2], discard_ratios=RATIOS)
    assert (len(forward), len(backward)) == (0, 1)
    assert_cells_are_explanations(table, model, IMAGE)


def test_what_is_blind_to_the_class_needs_no_gradient_and_is_chained_once(model):
    methods = ["attention_rollout", "raw_attention"]
    with (
        counted_passes(model) as (_, backward),
        patch.object(
            fused_block, "order_statistics", side_effect=order_statistics.order_statistics
        ) as select,
    ):
        table = sweep(model, IMAGE, methods=methods, targets=[0, 4, 2])
    assert backward == [] and select.call_count == 3 * len(FUSIONS) + len(FUSIONS)
    first, *others = (cells.relevance for _, cells in table.groupby("target"))
    for maps in others:
        assert np.array_equal(np.stack(first), np.stack(maps))


def test_a_fused_matrix_is_partitioned_once_for_all_ratios(model):
    with patch.object(order_statistics.np, "partition", side_effect=np.partition) as partition:
        sweep(model, IMAGE, methods=["gradient_rollout"], discard_ratios=RATIOS)
    assert partition.call_count == 3 * len(FUSIONS)  # blocks, fusions


def test_files_pictures_and_tensors_give_the_same_table(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "image.png")
    tables = [
        sweep(model, image, discard_ratios=RATIOS)
        for image in (picture, tmp_path / "image.png", [picture], model.images(picture))
    ]
    for table in tables[1:]:
        assert np.array_equal(np.stack(table.relevance), np.stack(tables[0].relevance))
    assert set(tables[0].target) == {explain(model, picture).target[0]}


def test_the_reference_is_the_undiscarded_map_even_where_it_is_not_asked_for(model):
    table = sweep(model, IMAGE, discard_ratios=[0.8, 0.4], targets=[1])
    for cell in table.itertuples():
        whole = explain(model, IMAGE, method=cell.method, target=1, head_fusion=cell.head_fusion)
        expected = scipy.stats.spearmanr(cell.relevance.ravel(), whole.map.ravel()).statistic
        assert cell.rank_correlation == pytest.approx(expected, abs=1e-6)
        entropy = scipy.stats.entropy(cell.relevance.ravel().astype(float), base=4 * 6)
        assert cell.entropy == pytest.approx(entropy)
    undiscarded = sweep(model, IMAGE, discard_ratios=[0])
    assert undiscarded.rank_correlation.to_numpy() == pytest.approx(1)


def test_entropy_and_rank_correlation_are_measures_per_image():
    even, single = torch.full((4, 6), 0.3), torch.eye(24)[7].view(4, 6)
    assert_close(relative_entropy(torch.stack([even, single])), torch.tensor([1.0, 0.0]).double())
    maps = torch.rand(3, 4, 6).mul(5).round()  # with ties
    found = rank_correlation(maps, maps.roll(1, dims=0))
    for index in range(3):
        expected = scipy.stats.spearmanr(maps[index].ravel(), maps[index - 1].ravel()).statistic
        assert found[index].item() == pytest.approx(expected)
    assert_close(rank_correlation(maps, 1 - maps**3), -torch.ones(3).double())
    assert rank_correlation(maps, even.expand(3, 4, 6)).isnan().all()


@pytest.mark.parametrize("with_batch", [True, False])
def test_coverage_adds_what_the_answer_key_says(model, with_batch):
    dog = torch.rand(1, 4, 6)
    coverage = {"dog": dog if with_batch else dog[0], "car": torch.zeros(9)}  # car: not a target
    table = sweep(model, IMAGE, targets=["dog", "fish"], discard_ratios=RATIOS, coverage=coverage)
    assert table[table.label == "fish"][["target_mass", "peak_on_target"]].isna().all(axis=None)
    for cell in table[table.label == "dog"].itertuples():
        found = torch.from_numpy(cell.relevance)[None]
        assert cell.target_mass == pytest.approx(mass_on_object(found, dog).item())
        assert cell.peak_on_target == peak_on_object(found, dog).item()
    assert "target_mass" not in sweep(model, IMAGE, discard_ratios=RATIOS)


def test_the_columns_and_their_order(model):
    coverage = {"dog": torch.rand(4, 6)}
    table = sweep(model, IMAGE, targets=["dog"], coverage=coverage)
    measures = ["entropy", "rank_correlation", "target_mass", "peak_on_target"]
    settings = ["method", "head_fusion", "discard_ratio", "start_block", "target", "label"]
    assert table.columns.tolist() == [*settings, *measures, "relevance"]
    assert not set(table.columns) & set(dir(pd.DataFrame))
    assert table[measures].dtypes.map(lambda dtype: dtype.kind).eq("f").all()


def test_a_map_without_any_relevance_has_no_measures():
    network = small_vit()
    torch.nn.init.zeros_(network.head.weight)
    coverage = {label: torch.rand(4, 6) for label in LABELS}
    blank = wrap(network, (32, 48))
    table = sweep(blank, IMAGE, methods=["gradient_rollout"], targets=[0], coverage=coverage)
    assert not np.stack(table.relevance).any()
    measures = ["entropy", "rank_correlation", "target_mass", "peak_on_target"]
    assert table[measures].isna().all(axis=None)


def test_a_scene_has_each_object_as_target_once():
    demo = load_model("demo", device="cpu")
    names = ["scene_cat_dog", "scene_ball_cat_car"]
    table = sweep_scenes(demo, names, methods=["gradient_rollout"], discard_ratios=[0.3, 0.9])
    assert [tuple(case) for case in table[["scene", "label"]].drop_duplicates().values] == [
        (name, label) for name in names for label in load_coverage(name, (14, 14))
    ]
    for cell in table.itertuples():
        key = load_coverage(cell.scene, (14, 14))[cell.label]
        assert cell.area == pytest.approx(key.mean().item())
        assert cell.target_mass == pytest.approx(
            mass_on_object(torch.from_numpy(cell.relevance)[None], key).item(), rel=1e-5
        )
        image = sample_path(cell.scene)
        whole = explain(demo, image, target=cell.label, head_fusion=cell.head_fusion).map
        control = match_entropy(whole, torch.tensor([cell.entropy]))
        assert cell.contrast_mass == pytest.approx(mass_on_object(control, key).item(), rel=1e-4)


def test_a_model_without_the_scenes_classes_is_asked_for_all_objects(model):
    strange = replace(model, labels=tuple("abcdefg"))
    axes = {"methods": ["attention_rollout"], "discard_ratios": [0.5]}
    table = sweep_scenes(strange, ["scene_cat_dog"], **axes)
    objects = object_coverage(strange, "scene_cat_dog")
    assert table["label"].unique() == [strange.label(int(table["target"][0]))]
    assert table["area"].to_numpy() == pytest.approx(objects.mean().item())
    for cell in table.itertuples():
        found = torch.from_numpy(cell.relevance)[None]
        assert cell.target_mass == pytest.approx(mass_on_object(found, objects).item(), rel=1e-5)
    with pytest.raises(ValueError, match="photo_cat has no masks"):
        sweep_scenes(model, ["photo_cat"])


def test_a_label_of_two_classes_is_no_riddle(model):
    predicted = int(model.network(model.images(sample_path("scene_cat_dog"))).argmax())
    labels = ["other"] * 7
    labels[predicted] = labels[predicted - 1] = "crane"
    twice = replace(model, labels=tuple(labels))
    with pytest.raises(ValueError, match="'crane' names several classes"):
        twice.class_index("crane")
    axes = {"head_fusions": ["mean", "max"], "discard_ratios": [0.0]}
    table = sweep_scenes(twice, ["scene_cat_dog"], **axes)
    assert set(table["target"]) == {predicted} and set(table["label"]) == {"crane"}
    assert table["target_mass"].notna().all()


@pytest.mark.slow
def test_the_benchmark_has_a_row_per_method():
    run = subprocess.run(
        [sys.executable, BENCHMARK, "--quick", "--rounds", "1"],
        env={name: value for name, value in os.environ.items() if name != "VIT_EXPLAIN"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| DeiT")]
    assert [row[1] for row in rows] == ["attention_rollout", "gradient_rollout"]
    assert all(0 < float(row[4]) < 100 for row in rows)
    assert "set VIT_EXPLAIN" in run.stdout


@pytest.mark.parametrize("levels", [4, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_each_ratio_discards_what_it_discards_alone(levels, dtype):
    fused = random_attention().mean(dim=1).to(dtype)
    if levels:  # many equal entries, as where a minimum over heads is 0
        fused = (levels * fused).round() / levels
    ratios = [0.99, 0.0, 0.5, 0.04, 0.96, 0.5]
    for ratio, kept in zip(ratios, discard_each(fused, ratios), strict=True):
        assert torch.equal(kept, discard_lowest(fused, ratio))


@settings(deadline=None)
@given(
    ratios=st.lists(st.floats(0, 0.999), min_size=1, max_size=4),
    head_fusions=st.lists(st.sampled_from(FUSIONS), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_swept_rollouts_are_the_rollouts_one_by_one(ratios, head_fusions, seed):
    torch.manual_seed(seed)
    attentions = [random_attention(batch=2, heads=3, tokens=5).double() for _ in range(4)]
    gradients = [torch.randn(2, 3, 5, 5).double() for _ in range(4)]
    readouts = torch.rand(len(head_fusions), 2, 5).softmax(dim=-1)
    vanilla = chain(fused_last_first(attentions, None, head_fusions), ratios, readouts)
    specific = chain(fused_last_first(attentions, gradients, head_fusions), ratios, readouts)
    assert vanilla.shape == (len(head_fusions), len(ratios), 2, 5)
    for place in np.ndindex(vanilla.shape[:2]):
        one = {"head_fusion": head_fusions[place[0]], "discard_ratio": ratios[place[1]]}
        one["readout"] = readouts[place[0]]
        assert_close(vanilla[place], attention_rollout(attentions, **one))
        expected = gradient_rollout(attentions, gradients, **one)
        assert_close(specific[place], expected)


def test_blocks_may_come_a_few_heads_at_a_time(monkeypatch):
    monkeypatch.setattr(sequences, "GROUP_ENTRIES", 2 * 5 * 5 * 2)
    whole = [random_attention(batch=2, heads=3, tokens=5) for _ in range(3)]
    parts = [lambda heads, queries, a=a: a[:, heads, queries] for a in whole]
    lazy = BlockSequence(parts, [a.shape for a in whole])
    fused = fuse_head_groups(lazy.head_groups(0), FUSIONS)
    for matrix, head_fusion in zip(fused, FUSIONS, strict=True):
        assert_close(matrix, fuse_heads(whole[0], head_fusion))
    readouts = torch.eye(5)[:3]
    few, all_heads = (
        chain(fused_last_first(blocks, blocks, FUSIONS), RATIOS, readouts)
        for blocks in (lazy, whole)
    )
    assert_close(few, all_heads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods is empty; give at least one"),
        ({"head_fusions": []}, "head_fusions is empty"),
        ({"discard_ratios": ()}, "discard_ratios is empty"),
        ({"targets": []}, "targets is empty"),
        ({"methods": "gradient_rollout"}, r"must be a list, got .*; write \['gradient_rollout'\]"),
        ({"discard_ratios": 0.9}, r"discard_ratios must be a list, got 0.9"),
        ({"targets": "dog"}, r"targets must be a list, got 'dog'; write \['dog'\]"),
        ({"targets": {"dog", "cat"}}, r"targets must be a list, got \{'.*'\}; write \[\{'.*'\}\]"),
        ({"targets": [{"dog"}, 1]}, "targets has 1 twice"),
        ({"targets": [{"dog", "cat"}, {0, 1}]}, r"targets has frozenset\(\{0, 1\}\) twice"),
        ({"targets": ["*zebra*"]}, r"no label is like '\*zebra\*'"),
        ({"methods": ["rollout"]}, "method must be one of .*attention_rollout.* got 'rollout'"),
        ({"head_fusions": ["median"]}, "head_fusion must be one of .* got 'median'"),
        ({"discard_ratios": [0.5, 1.0]}, r"discard_ratio must be a number in \[0, 1\), got 1.0"),
        ({"discard_ratios": [0.5, 0.9, 0.5]}, "discard_ratios has 0.5 twice"),
        ({"discard_ratios": [0, 0.0]}, "discard_ratios has 0.0 twice"),
        ({"methods": ["raw_attention"] * 2}, "methods has 'raw_attention' twice"),
        ({"targets": ["dog", 1]}, "targets has 1 twice"),
        ({"targets": ["dgo"]}, "unknown class 'dgo'; did you mean 'dog'"),
        ({"targets": [7]}, r"class index must be in \[0, 6\], got 7"),
        ({"start_block": 3}, "start_block must be in"),
        (
            {"targets": ["dog"], "coverage": {"dog": torch.ones(6, 4)}},
            r"coverage must be \(4, 6\), .* got \(6, 4\)",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_named(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep(model, IMAGE, **arguments)


def test_a_score_is_followed_instead_of_a_class(model):
    recording = record_model(model, IMAGE, score=lambda logits: logits[:, 5])
    table = sweep(model, recording, discard_ratios=RATIOS)
    assert table[["target", "label"]].isna().all(axis=None)
    expected = sweep(model, IMAGE, discard_ratios=RATIOS, targets=[5])
    assert_close(np.stack(table.relevance), np.stack(expected.relevance), rtol=1e-5, atol=1e-8)


def test_several_images_are_refused(model):
    for images in (IMAGE.expand(2, -1, -1, -1), record_model(model, IMAGE.expand(2, -1, -1, -1))):
        with pytest.raises(ValueError, match="a sweep is of one image, got 2; call it for each"):
            sweep(model, images)


def test_a_recording_that_does_not_fit_is_refused(model):
    other = wrap(small_vit(), (32, 48))
    with pytest.raises(ValueError, match="the recording is of another model"):
        sweep(model, record_model(other, IMAGE))
    without = record_model(model, IMAGE, gradients=False)
    once = record_model(model, IMAGE, keep_graph=False)
    with pytest.raises(ValueError, match="make it with record_model.*gradients=True"):
        sweep(model, without)
    with pytest.raises(ValueError, match="make it with record_model.*keep_graph=True"):
        sweep(model, once, targets=[0, 1])
    assert len(sweep(model, without, methods=["attention_rollout"], targets=[0, 1])) == 60
    assert len(sweep(model, once, methods=["gradient_rollout"], targets=[1])) == 30
