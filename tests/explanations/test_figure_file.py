"""README's pictures and the data behind them: whole, readable, and what `explain` computes now."""

from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from rollout import explain, load_model
from rollout.demo.samples import sample_path
from rollout.explanations.figure_file import read_figure, write_figure, write_overlay
from rollout.plots.figure import COLOUR_MAP, jet_overlay, new_figure
from rollout.plots.maps import plot_maps, plot_overlay

FIGURES = Path(__file__).parents[2] / "figures"
PICTURES = sorted(FIGURES.glob("*.png"))
OVERLAYS = [path for path in PICTURES if len(read_figure(path)) == 1]
every_figure = pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)


load = cache(partial(load_model, device="cpu"))  # those that need no download


@pytest.fixture(scope="module")
def explanation():
    return explain(load("demo"), sample_path("scene_bird_dog"), target="bird", head_fusion="max")


def compute_again(panel):
    return explain(load(panel["model"]), sample_path(panel["image"]), **panel["explain"])


def test_each_picture_has_its_data_and_each_data_its_picture():
    assert len(PICTURES) > 15
    assert {path.stem for path in PICTURES} == {path.stem for path in FIGURES.glob("*.json")}
    assert {path.suffix for path in FIGURES.iterdir()} <= {".png", ".json", ".gif"}


@every_figure
def test_the_map_computed_now_is_the_one_behind_the_figure(path):
    for panel in read_figure(path):
        again = compute_again(panel).map[0].numpy()
        assert panel["map"].shape == again.shape
        np.testing.assert_allclose(panel["map"], again, rtol=0, atol=2e-3 * again.max())


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_a_picture_in_the_look_of_vit_explain_shows_its_data(path):
    (panel,) = read_figure(path)
    with Image.open(path) as file:
        picture = np.asarray(file).astype(float)
    shown = compute_again(panel)
    expected = jet_overlay(shown.pictures[0].numpy(), shown.saliency_map()[0])
    assert np.abs(picture - expected).mean() < 1


@every_figure
def test_pictures_say_nothing_of_who_made_them(path):
    with Image.open(path) as picture:
        assert picture.info.keys() <= {"dpi"}


def test_what_is_written_is_read_again(explanation, tmp_path):
    path = write_overlay(explanation, tmp_path / "x.png", model="demo", image="scene_bird_dog")
    (panel,) = read_figure(path)
    assert panel["explain"] == {
        "method": "gradient_rollout",
        "target": explanation.target[0],
        "head_fusion": "max",
        "discard_ratio": 0.0,
    }
    assert (panel["model"], panel["image"]) == ("demo", "scene_bird_dog")
    expected = explanation.map[0].numpy()
    np.testing.assert_allclose(panel["map"], expected, rtol=1e-3, atol=0)


def test_a_row_of_a_sweep_is_as_good_as_an_explanation(explanation, tmp_path):
    row = {
        "method": explanation.method,
        "target": np.int64(explanation.target[0]),
        "head_fusion": "max",
        "discard_ratio": np.float64(0.0),
        "relevance": explanation.map[0].numpy(),
    }
    figure, _ = new_figure(1, 1, width=1, height=1)
    names = {"model": "demo", "image": "scene_bird_dog"}
    write_figure(figure, tmp_path / "a.png", {"a": explanation}, **names)
    write_figure(figure, tmp_path / "b.png", {"a": pd.Series(row)}, **names)
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_writing_twice_gives_the_same_bytes(explanation, tmp_path):
    for name in ("a.png", "b.png"):
        figure = plot_maps(
            explanation.pictures[0].numpy(), {"bird": explanation.map[0].numpy()}, unit="share"
        )
        write_figure(figure, tmp_path / name, {"bird": explanation}, model="demo", image="x")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_colour_map_survives_greyscale_and_colour_blindness():
    """Its lightness rises all the way; jet's, which only reproduces an older look, does not."""

    def lightness(name):
        red_green_blue = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] ** 2.2
        return np.diff(red_green_blue @ [0.2126, 0.7152, 0.0722])

    assert (lightness(COLOUR_MAP) > 0).all()
    assert (lightness("jet") < 0).any()


@pytest.mark.parametrize("grid_size", [(3, 5), (14, 14)])
def test_maps_lie_on_the_patch_grid(grid_size):
    """The map's cells end where the picture's pixels do."""
    picture, values = np.zeros((48, 80, 3)), np.ones(grid_size)
    _, axes = new_figure(1, 1, width=2, height=2)
    ax = plot_overlay(picture, values, ax=axes[0, 0])
    below, above = ax.images
    assert tuple(below.get_extent()) == tuple(above.get_extent()) == (-0.5, 79.5, 47.5, -0.5)


@pytest.mark.parametrize("shared", [True, False])
def test_compared_panels_say_how_their_scales_relate(shared):
    maps = {"weak": np.full((2, 3), 0.1), "strong": np.full((2, 3), 0.4)}
    figure = plot_maps(np.zeros((8, 12, 3)), maps, unit="share of all its mass", shared=shared)
    weak, strong = (ax.images[-1].get_clim() for ax in figure.axes[1:3])
    labels = [ax.get_ylabel() for ax in figure.axes]
    titles = [ax.get_title() for ax in figure.axes[1:3]]
    assert any("share of all its mass" in label.replace("\n", " ") for label in labels)
    if shared:
        assert weak == strong == (0, 0.4)
    else:
        assert (weak, strong) == ((0, 0.1), (0, 0.4))
        assert titles == ["weak\nbrightest: 0.1", "strong\nbrightest: 0.4"]


@pytest.mark.parametrize("shared", [True, False])
def test_no_label_is_cut_off(shared):
    maps = {"gradient rollout: airplane (100%)": np.full((2, 3), 0.4)}
    unit = "share of the class token's evidence"
    figure = plot_maps(np.zeros((8, 12, 3)), maps, unit=unit, shared=shared)
    FigureCanvasAgg(figure).draw()
    for ax in figure.axes:
        for text in [text for text in (ax.title, ax.yaxis.label) if text.get_text()]:
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
