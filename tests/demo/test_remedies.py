"""What is tried against a dominating patch: rows stay distributions, and controls find nothing."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import random_attention
from torch import Tensor
from torch.testing import assert_close

from rollout import load_model
from rollout.demo.remedies import (
    MEASURES,
    controls,
    judge,
    later_starts,
    remove_columns,
    summary,
    weigh_by_values,
)
from rollout.maths.metrics import mean_interval

BATCH, HEADS, TOKENS = 2, 3, 7


@dataclass
class Call:
    value: Tensor


@dataclass
class Block:
    calls: tuple[Call, ...]


def test_values_of_one_length_change_nothing_and_rows_sum_to_one():
    attention = random_attention(BATCH, HEADS, TOKENS)
    values = torch.randn(BATCH, HEADS, TOKENS, 4)
    equal = values / values.norm(dim=-1, keepdim=True)
    assert_close(weigh_by_values(attention, Block((Call(equal),))), attention)
    weighted = weigh_by_values(attention, Block((Call(values),)))
    assert_close(weighted.sum(dim=-1), torch.ones(BATCH, HEADS, TOKENS))
    lengths = values.norm(dim=-1)
    assert_close(
        weighted[1, 2, 3] / weighted[1, 2, 3, 0],
        attention[1, 2, 3] * lengths[1, 2] / (attention[1, 2, 3, 0] * lengths[1, 2, 0]),
    )


def test_only_a_patch_far_above_the_median_is_removed():
    attention = torch.full((BATCH, HEADS, TOKENS, TOKENS), 1.0)
    attention[0, ..., 4] = 40.0  # a patch
    attention[1, ..., 0] = 40.0  # the class token may draw what it wants
    attention /= attention.sum(dim=-1, keepdim=True)
    kept = remove_columns(attention, num_prefix_tokens=1)
    assert (kept[0, ..., 4] == 0).all()
    assert_close(kept[1], attention[1])
    assert_close(kept.sum(dim=-1), torch.ones(BATCH, HEADS, TOKENS))


def test_the_mean_of_equal_values_has_no_interval_and_others_lie_around_it():
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25, 0.25)
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(values.mean()) and low < mean < high
    # The central limit: about 1.96 standard errors to either side.
    error = values.std() / 20
    assert (mean - low) / error == pytest.approx(1.96, abs=0.15)
    assert (high - mean) / error == pytest.approx(1.96, abs=0.15)


def test_controls_know_nothing_of_the_image():
    found = controls(torch.zeros(BATCH, 4, 6))
    assert all(one.shape == (BATCH, 4, 6) for one in found.values())
    hill = found["control: centre"][0]
    assert_close(hill, hill.flip(0, 1))


def test_a_later_start_helps_the_demo_model_and_controls_find_nothing():
    model = load_model("demo", device="cpu")
    marks = judge(model, scenes=12, seed=7, batch_size=5)
    means = marks.groupby("map")[list(MEASURES)].mean()
    assert len(marks) == 12 * len(means)
    assert (
        means.loc["from block 2", "average_precision"]
        > means.loc["all blocks", "average_precision"]
    )
    assert means.loc["control: random", "average_precision"] < 0.3
    starts = judge(model, later_starts, scenes=12, seed=7, batch_size=12)
    again = marks[marks["map"] == "from block 2"].reset_index()[list(MEASURES)]
    one = starts[starts["map"] == "from block 2"].reset_index()[list(MEASURES)]
    assert_close(torch.tensor(again.values), torch.tensor(one.values), rtol=1e-4, atol=1e-5)
    assert summary(marks).loc["all blocks", "peak"].count("[") == 1
