"""Pictures of sweeps say what they show, share scales where panels are compared, and can move."""

import base64

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from rollout import load_model
from rollout.demo.scene_sweeps import record_scenes, sweep_scenes
from rollout.plots.figure import new_figure
from rollout.plots.film import PictureSlider, write_animation
from rollout.plots.sweeps import (
    LINES,
    MEASURES,
    plot_bars,
    plot_curve,
    plot_curves,
    plot_sweep_grid,
)
from rollout.settings import METHODS

PICTURE = np.random.default_rng(0).random((8, 12, 3))
GRID = {"rows": "head_fusion", "columns": "discard_ratio"}


@pytest.fixture
def cells():
    """Two fusions, three ratios; the maps' maxima are 1 to 6."""
    rows = [(fusion, ratio) for fusion in ("mean", "min") for ratio in (0.0, 0.5, 0.9)]
    table = pd.DataFrame(rows, columns=["head_fusion", "discard_ratio"])
    return table.assign(
        method="attention_rollout",
        relevance=[np.full((2, 3), top, np.float32) for top in range(1, 7)],
    )


def overlays(figure: Figure) -> list:
    """The panels with a map, row by row."""
    return [ax for ax in figure.axes if len(ax.images) == 2]


@pytest.mark.parametrize(
    ("shared", "tops"),
    [("figure", [6] * 6), ("row", [3, 3, 3, 6, 6, 6]), ("panel", [1, 2, 3, 4, 5, 6])],
)
def test_a_grid_shares_the_scale_that_is_asked_for(cells, shared, tops):
    figure = plot_sweep_grid(PICTURE, cells, shared=shared, **GRID)
    panels = overlays(figure)
    assert [ax.images[1].get_clim() for ax in panels] == [(0, top) for top in tops]
    assert [ax.get_title().split("\n")[0] for ax in panels[:3]] == [
        "discard 0",
        "discard 0.5",
        "discard 0.9",
    ]
    assert [panels[0].get_ylabel(), panels[3].get_ylabel()] == ["mean", "min"]
    assert all(("brightest" in ax.get_title()) == (shared == "panel") for ax in panels)
    unit = METHODS["attention_rollout"].unit
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert bars and all(unit in bar.get_ylabel().replace("\n", " ") for bar in bars)


def test_the_maps_of_a_grid_stand_where_their_settings_say(cells):
    shuffled = cells.sample(frac=1, random_state=0)
    panels = overlays(plot_sweep_grid(PICTURE, shuffled, shared="figure", **GRID))
    rows, columns = (shuffled[name].unique() for name in GRID.values())
    where = shuffled.set_index(list(GRID.values()))["relevance"]
    expected = [where[row, column].max() for row in rows for column in columns]
    assert [ax.images[1].get_array().max() for ax in panels] == expected


def test_each_row_can_have_its_own_picture(cells):
    pictures = {"mean": np.zeros((8, 12, 3)), "min": np.ones((8, 12, 3))}
    figure = plot_sweep_grid(pictures, cells, unit="share", **GRID)
    alone = [ax.images[0].get_array() for ax in figure.axes if len(ax.images) == 1]
    assert [image.max() for image in alone[:2]] == [0, 1]
    assert len(overlays(figure)) == 6


@pytest.fixture(scope="module")
def scenes():
    model = load_model("demo", device="cpu")
    return sweep_scenes(model, ["scene_cat_dog", "scene_airplane"], discard_ratios=[0.0, 0.5, 0.9])


def test_curves_are_means_over_the_scenes_in_fixed_colours(scenes):
    figure, axes = new_figure(1, 1, width=4, height=3)
    rolled = scenes[scenes["method"] == "attention_rollout"]
    plot_curve(rolled, "target_mass", control="contrast_mass", ax=axes[0, 0])
    lines = {line.get_label(): line for line in axes[0, 0].lines}
    for name, (colour, _) in LINES.items():
        expected = rolled[rolled["head_fusion"] == name].groupby("discard_ratio").target_mass.mean()
        assert np.allclose(lines[name].get_ydata(), expected)
        assert to_hex(lines[name].get_color()) == colour
    assert lines["a blind map"].get_ydata()[0] == pytest.approx(rolled["area"].mean())
    assert axes[0, 0].get_ylabel() == MEASURES["target_mass"]
    assert [label.get_text() for label in axes[0, 0].get_xticklabels()] == ["0", "0.5", "0.9"]


def test_every_method_and_measure_has_its_panel(scenes):
    figure = plot_curves(scenes, measures=list(MEASURES))
    assert [ax.get_ylabel() for ax in figure.axes] == list(MEASURES.values()) * 2
    assert [ax.get_title() for ax in figure.axes[::4]] == ["attention rollout", "gradient rollout"]
    bars = plot_bars(scenes, measures=["entropy", "target_mass"])
    for ax, measure in zip(bars.axes, ["entropy", "target_mass"], strict=True):
        means = scenes.groupby(["head_fusion", "method", "discard_ratio"], sort=False)[measure]
        heights = [patch.get_height() for patch in ax.patches]
        assert np.allclose(sorted(heights), sorted(means.mean()))
        labels = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
        assert labels[2::3] == ["attention rollout, discard 0.9", "gradient rollout, discard 0.9"]


def coloured_figure(colour: str) -> Figure:
    figure, axes = new_figure(1, 1, width=1, height=0.5)
    axes[0, 0].set_facecolor(colour)
    return figure


def test_an_animation_has_a_frame_per_figure_and_repeats(tmp_path):
    frames = [coloured_figure(colour) for colour in ("red", "green", "blue")]
    with Image.open(write_animation(frames, tmp_path / "a.gif", seconds=0.1)) as film:
        assert film.n_frames == 3 and film.info["loop"] == 0
        durations = []
        for number, channel in enumerate((0, 1, 2)):
            film.seek(number)
            durations.append(film.info["duration"])
            middle = film.convert("RGB").getpixel((film.width * 2 // 3, film.height // 3))
            assert int(np.argmax(middle)) == channel
    assert durations == [100, 100, 300]
    with pytest.raises(ValueError, match="frames is empty"):
        write_animation([], tmp_path / "b.gif")
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_the_slider_shows_one_picture_and_a_still_one_without_a_front_end():
    figures = {"0": coloured_figure("red"), "0.9": coloured_figure("blue")}
    slider = PictureSlider(figures, name="discard ratio", still=coloured_figure("green"))
    assert slider.slider.options == ("0", "0.9") and slider.slider.description == "discard ratio"
    assert slider.image.value == slider.pictures["0"]
    slider.slider.value = "0.9"
    assert slider.image.value == slider.pictures["0.9"] != slider.pictures["0"]
    bundle = slider._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == slider.still != slider.image.value
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_scenes_may_be_recorded_before(scenes):
    model = load_model("demo", device="cpu")
    recorded = record_scenes(model, ["scene_cat_dog", "scene_airplane"])
    again = sweep_scenes(model, recorded, discard_ratios=[0.0, 0.5, 0.9])
    pd.testing.assert_frame_equal(again.drop(columns="relevance"), scenes.drop(columns="relevance"))
