"""Flow over scenes: each cell is what the maths gives, and laws of flow hold."""

import numpy as np
import pytest
import torch
from helpers import random_attention, small_vit

from rollout import explain, load_model, wrap_model
from rollout.demo.samples import object_coverage, sample_path
from rollout.demo.scene_flows import column_sums, flow_scenes, swap_deep_blocks
from rollout.demo.scene_sweeps import record_scenes
from rollout.maths.flow import CUTS
from rollout.maths.fusion import discard_lowest, fuse_heads, transition
from rollout.maths.metrics import mass_on_object, rank_correlation

SCENES = ["scene_cat_dog", "scene_airplane"]
KNOBS = {"head_fusion": "max", "discard_ratio": 0.3}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wrap_model(small_vit(), image_size=(32, 48))


@pytest.fixture(scope="module")
def recorded(model):
    return record_scenes(model, SCENES, gradients=False)


@pytest.fixture(scope="module")
def table(recorded):
    return flow_scenes(recorded, [0, 2], **KNOBS)


def test_column_sums_are_those_of_the_transition():
    attention = random_attention(batch=2, heads=3, tokens=5)
    kept = discard_lowest(fuse_heads(attention, "max"), 0.3)
    expected = transition(kept).sum(dim=1).clamp(max=1)
    torch.testing.assert_close(column_sums(attention, **KNOBS), expected)


def test_the_maps_are_those_of_explain(table, model):
    assert [tuple(row) for row in table[["scene", "start_block"]].values] == [
        (scene, start) for scene in SCENES for start in (0, 2)
    ]
    for row in table.to_dict("records"):
        for name in ("flow", "rollout"):
            options = {"method": f"attention_{name}", "start_block": row["start_block"], **KNOBS}
            found = explain(model, sample_path(row["scene"]), **options).map
            np.testing.assert_allclose(row[name], found[0], rtol=1e-5, atol=1e-7)
            objects = object_coverage(model, row["scene"])
            times = mass_on_object(found, objects) / objects.mean()
            assert row[f"{name} on objects"] == pytest.approx(times.item(), rel=1e-4)


def test_flow_is_never_below_rollout_and_what_is_severed_is_its_sum(table):
    for row in table.to_dict("records"):
        assert (row["flow"] >= row["rollout"] - 1e-6).all()
        assert row["severed"].sum() == pytest.approx(row["flow"].sum(), rel=1e-5)
        assert sum(row[name] for name in CUTS) == pytest.approx(1)


def test_a_map_keeps_its_ranks_where_the_deep_blocks_are_its_own(recorded):
    alone = {name: recorded[SCENES[0]] for name in SCENES}
    assert swap_deep_blocks(alone, **KNOBS).to_numpy() == pytest.approx(1)
    swapped = swap_deep_blocks(recorded, **KNOBS)
    assert list(swapped.index) == SCENES and (swapped["rollout"] < 1).all()


def test_the_demo_models_flow_is_the_first_blocks_column_sums():
    recorded = record_scenes(load_model("demo", device="cpu"), SCENES[:1], gradients=False)
    (row,) = flow_scenes(recorded, [0]).to_dict("records")
    attention = recorded[SCENES[0]].record.distributions[0]
    sums = recorded[SCENES[0]].layout.to_grid(column_sums(attention))
    alike = rank_correlation(torch.from_numpy(row["flow"])[None], sums).item()
    assert row["with column sums"] == pytest.approx(alike) and alike > 0.95
