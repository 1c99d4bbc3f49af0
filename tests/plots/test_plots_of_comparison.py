"""Dots stand at the means with their intervals, curves have bands, controls look different."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rollout.plots.comparison import CONTROL, plot_curves, plot_intervals

MEANS = {"gradient rollout": 0.9, "raw attention": 0.5, "control: random": 0.1}


def frame(**columns):
    return pd.DataFrame(
        [
            {"map": name, "mean": mean, "low": mean - 0.05, "high": mean + 0.02, **row}
            for name, mean in MEANS.items()
            for row in ({key: value for key, value in columns.items()},)
        ]
    )


def test_each_measure_has_a_panel_and_each_map_a_dot_in_its_interval():
    table = pd.concat([frame(measure="peak"), frame(measure="entropy").iloc[:2]])
    figure = plot_intervals(table, titles={"peak": "peak (higher is better)"})
    peak, entropy = figure.axes
    assert peak.get_title() == "peak (higher is better)" and entropy.get_title() == "entropy"
    assert [label.get_text() for label in peak.get_yticklabels()] == list(MEANS)
    lines = [(line.get_xdata(), list(line.get_ydata())) for line in peak.lines]
    for place, (name, mean) in enumerate(MEANS.items()):
        interval, dot = lines[2 * place : 2 * place + 2]
        assert list(interval[0]) == pytest.approx([mean - 0.05, mean + 0.02])
        assert list(dot[0]) == [mean] and dot[1] == [place]
        assert (peak.lines[2 * place].get_color() == CONTROL) == name.startswith("control")
    assert len(entropy.lines) == 4
    top, bottom = reversed(peak.get_ylim())
    assert top < bottom  # the first map is above


def test_a_curve_is_drawn_in_the_order_of_its_steps_with_its_band():
    points = pd.concat([frame(step=step) for step in (0.5, 0.0, 1.0)])
    figure = plot_curves(points, ["raw attention", "gradient rollout"], across="gone", up="p")
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["raw attention", "gradient rollout"]
    assert list(ax.lines[0].get_xdata()) == [0.0, 0.5, 1.0]
    low, high = ax.collections[0].get_datalim(ax.transData).intervaly
    assert (low, high) == pytest.approx((0.45, 0.52))
    assert ax.get_xlabel() == "gone"
    other, axes = plt.subplots()
    assert plot_curves(points, ["raw attention"], across="gone", up="p", ax=axes) is other
    plt.close(other)


def test_maps_that_are_not_there_or_too_many_are_refused():
    with pytest.raises(ValueError, match="no map 'legrad'"):
        plot_curves(frame(step=0.0), ["legrad"], across="gone", up="p")
    with pytest.raises(ValueError, match="one to 7 maps, got 8"):
        plot_curves(frame(step=0.0), ["a"] * 8, across="gone", up="p")
