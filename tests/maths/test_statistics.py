"""The paired test finds what is there and little else; Holm's correction as he gave it."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from rollout.maths.statistics import holm, paired_p


def test_holm_multiplies_the_smallest_most():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.5]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.002]), [0.002])
    assert holm([]).tolist() == []


def test_holm_rejects_what_stepping_down_rejects():
    """The procedure itself: compare the k-th smallest with 0.05 / (n - k) until one is larger."""
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.uniform(0, 0.05, 6)
        rejected, order = np.zeros(6, bool), p.argsort()
        for step, place in enumerate(order):
            if p[place] > 0.05 / (6 - step):
                break
            rejected[place] = True
        assert ((holm(p) <= 0.05) == rejected).all()


def test_a_shift_is_found_and_chance_is_not():
    random = np.random.default_rng(1)
    noise = random.normal(0, 1, (200, 40))
    assert np.mean([paired_p(one) < 0.05 for one in noise]) == pytest.approx(0.05, abs=0.03)
    assert all(paired_p(one + 1.5) < 1e-3 for one in noise[:20])
    assert paired_p(noise[0]) == pytest.approx(paired_p(-noise[0]))


def test_images_without_a_difference_say_nothing():
    told = np.array([0.5, 0.25, 0.75, 1.0, 0.125])
    padded = np.concatenate([told, np.zeros(30), [np.nan]])
    assert paired_p(padded) == wilcoxon(told).pvalue
    assert paired_p(np.zeros(8)) == paired_p(np.array([0.0, 1.0])) == 1
