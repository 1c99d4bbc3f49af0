"""The comparison of notebook outputs: blind to rounding and shades, not to other results."""

import numpy as np
import pytest
from outputs import same_picture, same_text

TABLE = "map        mass\nvanilla    0.39\nmax, 0.9   0.54"


@pytest.mark.parametrize(
    "again",
    [TABLE, TABLE.replace("0.54", "0.55"), TABLE.replace("   ", " "), TABLE.replace("39", "38")],
)
def test_the_last_digit_and_the_spaces_do_not_count(again):
    assert same_text(TABLE, again)


@pytest.mark.parametrize(
    "other",
    [
        TABLE.replace("0.54", "0.56"),
        TABLE.replace("0.54", "-0.54"),
        TABLE.replace("max", "min"),
        TABLE + "\nmean 0.1",
        TABLE.replace("0.39", "nan"),
    ],
)
def test_another_number_or_word_is_another_text(other):
    assert not same_text(TABLE, other)


def test_percentages_may_round_to_the_other_side_and_counts_not():
    assert same_text("cat (98%), 1.2e-03", "cat (97%), 1.3e-03")
    assert not same_text("cat (98%)", "cat (96%)")
    assert not same_text("in 12 cases", "in 13 cases")
    assert same_text("148 tokens", "149 tokens") and not same_text("148 tokens", "151 tokens")


def test_a_shade_is_the_same_picture_and_a_moved_spot_is_not():
    picture = np.zeros((80, 96, 3))
    picture[10:20, 10:20] = 1.0
    assert same_picture(picture, picture + 1 / 255)
    assert not same_picture(picture, np.roll(picture, 12, axis=1))
    assert not same_picture(picture, picture[:-1])
