"""Checks of a map against what removing each object does: the truth itself passes them all."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch.testing import assert_close

from rollout.maths.objects import (
    deletion_check,
    drop_correlation,
    irrelevant_mass,
    irrelevant_objects,
    object_shares,
    preservation_check,
)

DROPS = torch.tensor([0.2, 5.0, -0.3, 1.0, 0.1], dtype=torch.float64)


def test_shares_are_those_of_the_mass_on_objects():
    coverages = torch.zeros(3, 4, 6)
    coverages[0, 0, :2], coverages[1, 1, :2], coverages[2, 3, 5] = 1, 0.5, 1
    saliency = torch.zeros(4, 6)
    saliency[0, 0], saliency[1, 1], saliency[2, 2] = 3, 2, 100
    assert_close(object_shares(saliency, coverages), torch.tensor([0.75, 0.25, 0.0]))
    assert object_shares(torch.zeros(4, 6), coverages).isnan().all()


def test_the_truth_passes_every_check():
    shares = DROPS.clamp(min=0) / DROPS.clamp(min=0).sum()
    assert drop_correlation(DROPS, DROPS) == pytest.approx(1)
    assert deletion_check(shares, DROPS) == 1
    assert irrelevant_objects(shares) == (2, 4)
    assert irrelevant_mass(shares, DROPS) == pytest.approx(0.3 / 6.3)  # 0.2 and 0.1 of 6.3
    assert preservation_check(0.0, DROPS) == preservation_check(-1.0, DROPS) == 1


def test_the_opposite_of_the_truth_passes_none():
    shares = torch.tensor([0.1, 0.0, 0.7, 0.05, 0.15], dtype=torch.float64)
    assert drop_correlation(shares, DROPS) < -0.5
    assert deletion_check(shares, DROPS) == 0  # its first object is in the target's way
    assert irrelevant_objects(shares) == (1, 3)
    assert irrelevant_mass(shares, DROPS) == pytest.approx(0.95)
    assert preservation_check(6.0, DROPS) == 0
    assert preservation_check(1.25, DROPS) == 0.75


def test_the_correlation_is_scipys():
    generator = torch.Generator().manual_seed(3)
    shares, drops = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    assert drop_correlation(shares, drops) == pytest.approx(spearmanr(shares, drops).statistic)


def test_where_nothing_can_be_said_there_is_no_number():
    even, nothing = torch.full((5,), 0.2), torch.full((5,), torch.nan)
    helps = -torch.rand(5)
    assert math.isnan(drop_correlation(even, DROPS))
    for check in (deletion_check, irrelevant_mass):
        assert math.isnan(check(nothing, DROPS)) and math.isnan(check(even, helps))
    assert math.isnan(preservation_check(0.1, helps))
