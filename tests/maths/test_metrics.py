"""Metrics against scikit-learn, by hand, and at their extremes."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy, norm, spearmanr
from sklearn.metrics import average_precision_score
from torch.testing import assert_close

from rollout.maths.metrics import (
    average_precision,
    mass_on_object,
    mean_average_precision,
    mean_interval,
    peak_on_object,
    rank_correlation,
    relative_entropy,
    target_share,
)
from rollout.maths.placement import patch_coverage


def test_coverage_is_the_share_of_each_patch():
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[0, :2, :3] = True
    mask[1, 0, 0] = True
    coverage = patch_coverage(mask, (2, 2))
    assert_close(coverage[0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert_close(coverage[1], torch.tensor([[1 / 6, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_equals_scikit_learn(levels):
    scores = torch.randint(levels, (4, 3, 7)).float()  # few levels make ties
    coverage = torch.rand(4, 3, 7)
    expected = [
        average_precision_score((truth > 0.5).flatten().numpy(), score.flatten().numpy())
        for truth, score in zip(coverage, scores, strict=True)
    ]
    assert_close(average_precision(scores, coverage), torch.tensor(expected, dtype=torch.float32))


def test_a_perfect_and_a_reversed_map():
    coverage = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    perfect = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])
    assert average_precision(perfect, coverage).item() == 1
    assert average_precision(-perfect, coverage).item() == pytest.approx(1 / 4)
    assert peak_on_object(perfect, coverage).tolist() == [True]
    assert peak_on_object(-perfect, coverage).tolist() == [False]


def test_a_patch_just_at_the_threshold_does_not_belong_to_the_object():
    coverage = torch.tensor([[[0.5, 0.75, 0.25]]])
    at_the_border, within = torch.tensor([[[3.0, 2.0, 1.0]]]), torch.tensor([[[2.0, 3.0, 1.0]]])
    assert peak_on_object(at_the_border, coverage, threshold=0.5).tolist() == [False]
    assert peak_on_object(within, coverage, threshold=0.5).tolist() == [True]
    assert average_precision(at_the_border, coverage).item() == 1 / 2
    assert average_precision(within, coverage).item() == 1


def test_an_object_too_small_for_a_patch_has_no_precision():
    assert average_precision(torch.rand(2, 2, 3), torch.full((2, 2, 3), 0.1)).isnan().all()


def test_shares_by_hand():
    saliency = torch.tensor([[[3.0, 1.0], [4.0, 2.0]]])
    target = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    rival = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    assert_close(target_share(saliency, target, rival), torch.tensor([4 / 5]))
    assert_close(mass_on_object(saliency, target), torch.tensor([4 / 10]))


def test_a_uniform_map_has_the_objects_area():
    coverage = torch.rand(2, 3, 5)
    assert_close(mass_on_object(torch.ones(2, 3, 5), coverage), coverage.mean(dim=(1, 2)))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"got saliency_map \(2, 3, 4\) and coverage \(2, 4, 3\)"):
        peak_on_object(torch.rand(2, 3, 4), torch.rand(2, 4, 3))


def test_the_precision_of_all_classes_is_that_of_scikit_learn():
    scores, present = torch.randint(5, (9, 4)).float(), torch.rand(9, 4) > 0.6
    present[:, 2] = False  # a class that no image holds
    held = present.any(dim=0)
    expected = average_precision_score(present[:, held], scores[:, held], average="macro")
    assert mean_average_precision(scores, present).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("levels", [3, 1000])
def test_correlation_and_entropy_are_those_of_scipy(levels):
    maps, others = (torch.randint(1, levels + 1, (2, 3, 7)).float() for _ in "ab")
    for image in range(2):
        one, other = maps[image].flatten().numpy(), others[image].flatten().numpy()
        assert rank_correlation(maps, others)[image] == pytest.approx(spearmanr(one, other)[0])
        expected = entropy(one / one.sum()) / np.log(21)
        assert relative_entropy(maps)[image] == pytest.approx(expected, rel=1e-6)
    assert rank_correlation(maps, torch.ones(2, 3, 7)).isnan().all()
    for other in (torch.ones(2, 7, 3), torch.ones(1, 3, 7)):
        with pytest.raises(
            ValueError, match="shapes must be the same|must be .batch, rows, columns."
        ):
            rank_correlation(maps, other)
    with pytest.raises(ValueError, match="shapes must be the same|must be .batch, rows, columns."):
        rank_correlation(maps[0], others[0])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_an_interval_of_many_cases_is_that_of_the_normal_distribution(level):
    values = np.random.default_rng(1).exponential(size=400)
    mean, low, high = mean_interval(values, level=level)
    error = values.std() / 20 * norm.ppf((1 + level) / 2)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - error, mean + error), abs=0.1 * error)
    assert mean_interval(values, level=level) == (mean, low, high)


def test_one_case_or_equal_ones_have_no_interval():
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)
    assert mean_interval([0.25] * 5) == (0.25, 0.25, 0.25)
    mean, low, high = mean_interval([0.0, 1.0])
    assert mean == 0.5 and low == 0 and high == 1
