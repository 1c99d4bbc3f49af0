"""Scales for the eye: what ends them, what is marked above, and words that are read at a glance."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rollout import load_model
from rollout.demo.scene_sweeps import sweep_scenes
from rollout.plots.contact_sheet import plot_contact_sheet
from rollout.plots.figure import new_figure
from rollout.plots.maps import plot_maps, plot_overlay
from rollout.plots.sweeps import plot_curve, plot_curves, plot_sweep_grid, say

PICTURE = np.random.default_rng(0).random((40, 60, 3))
UNIT = "share of the readout's content"


def dotted(value: float = 0.9, top: float = 0.1, patch: tuple[int, int] = (1, 4)) -> np.ndarray:
    saliency_map = np.linspace(0.01, top, 24, dtype=np.float32).reshape(4, 6)
    saliency_map[patch] = value
    return saliency_map


def bars(figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def points_up(bar) -> bool:
    """Whether a bar ends in an arrow: the colours' outline then has a tip."""
    return len(bar.patches) > 0


@pytest.mark.parametrize("opacity", [-0.6, 1.01])
def test_an_opacity_that_is_none_is_named(opacity):
    _, axes = new_figure(1, 1, width=2, height=2)
    with pytest.raises(ValueError, match=rf"opacity must be in \[0, 1\], got {opacity}"):
        plot_overlay(PICTURE, dotted(), ax=axes[0, 0], opacity=opacity)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_with_gaps_is_refused(value):
    _, axes = new_figure(1, 1, width=2, height=2)
    with pytest.raises(ValueError, match="saliency_map must hold finite numbers"):
        plot_overlay(PICTURE, dotted(value), ax=axes[0, 0])


def test_a_number_of_columns_may_be_one_of_few_bits():
    maps = {str(number): dotted() for number in range(6)}
    figure = plot_maps(PICTURE, maps, unit=UNIT, columns=np.uint8(2))
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (4, 2)
    titles = [str(number) for number in range(7)]
    figure = plot_contact_sheet([PICTURE] * 7, [dotted()] * 7, titles, columns=np.uint8(3))
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 3)


@pytest.mark.parametrize("scale", ["auto", "max"])
def test_a_dot_is_boxed_beside_its_value_and_the_bar_has_a_tip(scale):
    _, axes = new_figure(1, 1, width=4, height=3)
    values = dotted()
    ax = plot_overlay(PICTURE, values, ax=axes[0, 0], unit=UNIT, scale=scale)
    clipped = scale == "auto"
    assert ax.images[1].get_clim() == (0, pytest.approx(0.1 if clipped else 0.9))
    assert len(ax.patches) == clipped
    assert [text.get_text() for text in ax.texts] == (["0.9"] if clipped else [])
    (bar,) = bars(ax.figure)
    assert points_up(bar) == clipped and bar.get_ylabel() == UNIT
    if clipped:
        assert ax.patches[0].get_xy() == (39.5, 9.5)
        assert (ax.patches[0].get_width(), ax.patches[0].get_height()) == (10, 10)


def test_values_stand_inside_the_picture():
    for patch in [(0, 0), (0, 5), (3, 2), (3, 3)]:
        figure, axes = new_figure(1, 1, width=3, height=2)
        ax = plot_overlay(PICTURE, dotted(patch=patch), ax=axes[0, 0])
        FigureCanvasAgg(figure).draw()
        (text,) = ax.texts
        box, frame = text.get_window_extent(), ax.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1


def test_a_shared_scale_is_not_ruled_by_one_panels_dot():
    maps = {"dot": dotted(), "even": np.full((4, 6), 0.05, np.float32), "zero": np.zeros((4, 6))}
    figure = plot_maps(PICTURE, maps, unit=UNIT)
    dot, even, zero = figure.axes[1:4]
    assert {ax.images[1].get_clim() for ax in (dot, even, zero)} == {(0, np.float32(0.1))}
    assert [len(ax.patches) for ax in (dot, even, zero)] == [1, 0, 0]
    (bar,) = bars(figure)
    assert points_up(bar)
    assert not points_up(bars(plot_maps(PICTURE, maps, unit=UNIT, scale="max"))[0])


def test_panels_with_their_own_scales_have_a_bar_that_is_read_at_a_glance():
    maps = {"weak": np.full((4, 6), 0.1), "strong": np.full((4, 6), 0.4)}
    figure = plot_maps(PICTURE, maps, unit=UNIT, shared=False)
    (bar,) = bars(figure)
    words = [label.get_text() for label in bar.get_yticklabels()]
    assert words == ["0", "the panel's\nbrightest"]
    assert bar.get_ylabel().replace("\n", " ") == UNIT  # the unit once, and nothing else
    maps["dot"] = dotted()
    figure = plot_maps(PICTURE, maps, unit=UNIT, shared=False)
    (bar,) = bars(figure)
    assert bar.get_yticklabels()[1].get_text() == "end of the\npanel's scale" and points_up(bar)
    titles = [ax.get_title() for ax in figure.axes[1:4]]
    assert titles == ["weak\nbrightest: 0.1", "strong\nbrightest: 0.4", "dot\nscale ends at 0.1"]


def cells(maps, **columns) -> pd.DataFrame:
    table = pd.DataFrame({"method": "attention_rollout", **columns}, index=range(len(maps)))
    return table.assign(relevance=maps)


@pytest.mark.parametrize("shared", ["figure", "row", "panel"])
def test_a_grid_of_a_sweep_is_not_blinded(shared):
    maps = [dotted(), dotted(top=0.2), np.full((4, 6), 0.3), np.full((4, 6), 0.01)]
    table = cells(maps, head_fusion=["mean", "mean", "max", "max"], start_block=[0, 1, 0, 1])
    look = {"rows": "head_fusion", "columns": "start_block", "shared": shared}
    figure = plot_sweep_grid(PICTURE, table, **look)
    panels = [ax for ax in figure.axes if len(ax.images) == 2]
    tops = {"figure": [0.3] * 4, "row": [0.2, 0.2, 0.3, 0.3], "panel": [0.1, 0.2, 0.3, 0.01]}
    assert [ax.images[1].get_clim()[1] for ax in panels] == pytest.approx(tops[shared])
    assert [len(ax.patches) for ax in panels] == [1, 1, 0, 0]
    assert [points_up(bar) for bar in bars(figure)] == (
        [True]
        if shared == "panel"
        else {
            "figure": [True, False],
            "row": [True, False],
        }[shared]
    )
    assert panels[0].get_title().split("\n")[0] == "all blocks"
    assert panels[1].get_title().split("\n")[0] == "from block 2"
    marked = plot_sweep_grid(PICTURE, table, scale="max", **look).axes
    assert not any(ax.patches for ax in marked if len(ax.images) == 2)


@pytest.mark.parametrize(("count", "own", "lines"), [(5, 0, 1), (6, 0, 2), (8, 1, 2), (11, 0, 3)])
def test_a_long_row_is_broken_so_that_a_patch_can_be_seen(count, own, lines):
    ratios = [place / 20 for place in range(count)]
    maps = [np.full((4, 6), 0.1 + ratio, np.float32) for ratio in ratios]
    table = cells(maps, head_fusion="mean", discard_ratio=ratios)
    pictures = {"mean": PICTURE} if own else PICTURE
    figure = plot_sweep_grid(pictures, table, rows="head_fusion", columns="discard_ratio")
    FigureCanvasAgg(figure).draw()
    panels = [ax for ax in figure.axes if len(ax.images) == 2]
    assert [ax.images[1].get_array().max() for ax in panels] == [one.max() for one in maps]
    assert [ax.get_title() for ax in panels] == [f"discard {ratio:g}" for ratio in ratios]
    assert len({round(ax.get_position().y0, 2) for ax in panels}) == lines
    assert all(ax.get_window_extent().width > 110 for ax in panels)
    assert len(bars(figure)) == 1


def test_curves_run_over_the_first_block():
    model = load_model("demo", device="cpu")
    axes = {"start_blocks": [0, 1, 4], "discard_ratios": [0.0], "head_fusions": ["mean", "max"]}
    table = sweep_scenes(model, ["scene_cat_dog"], methods=["attention_rollout"], **axes)
    figure = plot_curves(table, measures=["target_mass", "entropy"], over="start_block")
    left, right = figure.axes
    for ax, measure in ((left, "target_mass"), (right, "entropy")):
        lines = {line.get_label(): line for line in ax.lines}
        for fusion in ("mean", "max"):
            rows = table[table.head_fusion == fusion]
            assert lines[fusion].get_xdata().tolist() == [0, 1, 4]
            means = rows.groupby("start_block")[measure].mean()
            assert np.allclose(lines[fusion].get_ydata(), means)
        assert ax.get_xticks().tolist() == [0, 1, 4]
        assert "start_block" in ax.get_xlabel() and "published" not in ax.get_xlabel()
    assert np.allclose(table.contrast_mass, table.target_mass)  # nothing is discarded
    _, axes = new_figure(1, 1, width=4, height=3)
    plot_curve(table, "entropy", over="start_block", ax=axes[0, 0])
    assert say("start_block", 3) == "from block 4"


@pytest.mark.parametrize("shared", [True, False])
def test_a_logarithmic_picture_says_so_and_shows_low_values(shared):
    maps = {"weak": dotted(0.01, 0.1), "dot": dotted(1.0, 0.01)}
    figure = plot_maps(PICTURE, maps, unit=UNIT, shared=shared, scale="log")
    weak, dot = figure.axes[1:3]
    assert [ax.images[1].get_clim() for ax in (weak, dot)] == [(0, 1)] * 2
    assert len(weak.patches) == len(dot.patches) == 0  # nothing is left out
    (bar,) = bars(figure)
    assert (bar.get_yscale() == "log") == shared
    assert "logarithmic" in bar.get_ylabel()
    lowest = "" if shared else "the panel's\nlowest"
    assert shared or bar.get_yticklabels()[0].get_text() == lowest
    assert weak.images[1].get_array().max() == pytest.approx(0.5 if shared else 1, abs=1e-6)


def test_a_percentile_marks_what_is_above_it():
    _, axes = new_figure(1, 1, width=4, height=3)
    values = dotted()
    ax = plot_overlay(PICTURE, values, ax=axes[0, 0], unit=UNIT, scale="percentile")
    assert ax.images[1].get_clim() == (0, pytest.approx(np.percentile(values, 99)))
    assert len(ax.patches) == 1 and points_up(bars(ax.figure)[0])


def test_a_sweep_has_a_logarithmic_scale_per_row():
    table = pd.DataFrame(
        {
            "method": "attention_rollout",
            "head_fusion": ["mean", "mean", "max", "max"],
            "discard_ratio": [0.0, 0.9] * 2,
            "relevance": [dotted(0.01, top) for top in (0.1, 0.2, 0.4, 0.8)],
        }
    )
    look = {"rows": "head_fusion", "columns": "discard_ratio", "scale": "log"}
    figure = plot_sweep_grid(PICTURE, table, **look)
    assert [bar.get_yscale() for bar in bars(figure)] == ["log"] * 2
    for bar, high in zip(bars(figure), (0.2, 0.8), strict=True):
        assert bar.get_ylim() == pytest.approx((0.01, high))
