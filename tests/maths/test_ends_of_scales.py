"""Scales of maps: where they begin and end, and how colours run in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import LogNorm, Normalize

from rollout.maths.scales import LOWEST, SCALES, along_scale, log_bottom, scale_top, shared_top

MAPS = arrays(np.float64, (4, 6), elements=st.floats(0, 1, width=32))


@given(MAPS, st.sampled_from(SCALES))
def test_a_scale_ends_within_the_map(saliency_map, scale):
    top = scale_top(saliency_map, scale)
    assert 0 < top <= (saliency_map.max() or 1)
    assert shared_top([saliency_map, saliency_map / 2], scale) == top


@given(MAPS)
def test_a_logarithmic_scale_begins_above_0_and_below_its_end(saliency_map):
    top = scale_top(saliency_map, "log")
    bottom = log_bottom([saliency_map], top)
    assert 0 < LOWEST * top * 0.999 <= bottom < top
    if bottom not in (LOWEST * top, top / 10):
        assert bottom == saliency_map[saliency_map > 0].min()


@given(MAPS)
def test_colours_run_as_matplotlibs_norms_do(saliency_map):
    top = scale_top(saliency_map, "max")
    low = log_bottom([saliency_map], top)
    for begin, norm in ((0.0, Normalize(0, top)), (low, LogNorm(low, top, clip=True))):
        found = along_scale(saliency_map, begin, top, logarithmic=begin > 0)
        np.testing.assert_allclose(found, norm(saliency_map.clip(begin)), atol=1e-6)


def test_the_percentile_is_numpys_and_zeros_end_at_1():
    saliency_map = np.random.default_rng(0).random((14, 14))
    assert scale_top(saliency_map, "percentile") == np.percentile(saliency_map, 99)
    one = np.zeros((14, 14))
    one[3, 4] = 0.5  # the 99th percentile is 0: then the maximum
    assert scale_top(one, "percentile") == 0.5
    assert all(scale_top(np.zeros((2, 3)), scale) == 1 for scale in SCALES)


@pytest.mark.parametrize("scale", ["Max", 3, None])
def test_another_scale_is_refused(scale):
    with pytest.raises(ValueError, match='scale must be one of "auto", "max", "percentile", "log"'):
        scale_top(np.ones((2, 3)), scale)
