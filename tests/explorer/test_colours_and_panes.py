"""Where colours end, blocks and heads in their order, methods side by side, larger text."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from explorers import SCENE, WIDE, problem
from helpers import vit_with_a_sink

from rollout import explain, explore, wrap_model
from rollout.demo.samples import load_masks, sample_path
from rollout.explorer.browser.canvas import MapCanvas
from rollout.explorer.explore import snapshot
from rollout.explorer.figure import plot_frame
from rollout.explorer.frame import main_frame
from rollout.explorer.grid import grid_frame, places
from rollout.explorer.side_by_side import methods_frame
from rollout.explorer.sources import open_session
from rollout.explorer.view import View, as_keywords
from rollout.maths.dominance import largest_share
from rollout.maths.metrics import relative_entropy
from rollout.settings import METHODS, Settings


@pytest.fixture(scope="module")
def sink():
    return wrap_model(vit_with_a_sink((2, 4)), labels=list("abcdefg"), name="sink")


@pytest.fixture(scope="module")
def scene(demo):
    return open_session(demo, sample_path(SCENE), load_masks(SCENE))


@pytest.mark.parametrize("scale", ["auto", "max", "percentile", "log"])
def test_each_scale_ends_where_it_says_in_the_panel_the_figure_and_the_browser(sink, scale):
    session = open_session(sink, WIDE)
    frame = main_frame(session, View("w", "sink", "attention_rollout", 0, scale=scale))
    panel, values = frame.panels[0], frame.panels[0].values
    high = {
        "auto": np.sort(values, axis=None)[-2],
        "percentile": np.percentile(values, 99),
    }.get(scale, values.max())
    assert panel.high == pytest.approx(high)
    low = max(values[values > 0].min(), 1e-4 * values.max()) if scale == "log" else 0
    assert panel.low == pytest.approx(low)
    figure = plot_frame(frame, session.picture())
    bar = next(ax for ax in figure.axes if ax.get_label() == "<colorbar>")
    assert ("logarithmic" in bar.get_xlabel()) == (scale == "log")
    assert (bar.get_xscale() == "log") == (scale == "log")
    assert bar.get_xlim() == pytest.approx((low, high))
    outlined = [ax.patches for ax in figure.axes[:2]]
    assert [len(patches) for patches in outlined] == [scale in ("auto", "percentile")] * 2
    canvas = MapCanvas()
    canvas.show_picture(session.picture())
    canvas.show(frame)
    sent = canvas.frame["panels"][0]
    assert (sent["low"], sent["high"], sent["logarithmic"]) == (panel.low, panel.high, low > 0)
    canvas.close()


def test_a_difference_has_no_logarithm(scene):
    frame = main_frame(scene, View(SCENE, "demo", target=0, rival=1, scale="log"))
    first, second, difference = frame.panels
    assert first.bottom == second.bottom > 0 and first.high == second.high
    assert difference.low == -difference.high


def test_a_click_leaves_what_outshines_all_out_of_the_scale(sink, tmp_path):
    made = explore(sink, WIDE, method="attention_rollout", scale="max", output_folder=tmp_path)
    cure = made.controls.cure
    assert cure.description == "Leave row 2, column 4 out of the scale"
    cure.click()
    assert made.view.scale == "auto" and cure.description == "Leave block 1 out"
    made.controls.scale.value = "log"
    assert "logarithmic colours" in made.canvas.frame["caption"] and not problem(made)
    made.close()


@pytest.mark.parametrize("order", ["entropy", "largest"])
def test_the_grid_is_sorted_and_a_click_finds_its_panel(explorer, order):
    explorer.tabs.selected_index = 1
    explorer.controls.method.value = "attention_rollout"
    explorer.controls.grid_order.value = order
    session, view = explorer.session, explorer.view
    frame = grid_frame(session, view)
    if order == "entropy":
        measures = relative_entropy(torch.from_numpy(np.stack([p.values for p in frame.panels])))
        assert (measures.diff() >= 0).all()
    else:
        measures = np.array([largest_share(panel.values) for panel in frame.panels])
        assert (np.diff(measures) <= 0).all()
    assert frame.panels[0].title.endswith(f": {float(measures[0]):.2f}")
    assert sorted(places(session, view)) == [(b, h) for b in range(6) for h in range(3)]
    explorer.grid_canvas.pointer = {"kind": "click", "panel": 4, "patch": [0, 0], "number": 1}
    np.testing.assert_allclose(
        main_frame(session, explorer.view).panels[0].values, frame.panels[4].values, rtol=1e-5
    )


def test_several_methods_side_by_side_with_what_lies_on_each_object(scene):
    view = View(SCENE, "demo", target=1, settings=Settings(discard_ratio=0.3, end_block=5))
    frame = methods_frame(scene, view)
    for method, panel in zip(view.methods, frame.panels, strict=True):
        expected = explain(
            scene.model, SCENE, method=method, target=1, discard_ratio=0.3, end_block=5
        ).map[0]
        np.testing.assert_allclose(panel.values, expected, rtol=1e-4, atol=1e-7)
        assert panel.name == METHODS[method].title
        shares = scene.shares(panel.values)
        assert panel.note == "\n".join(f"{label} {mass:.0%}" for label, (mass, _) in shares.items())
    assert len({panel.high for panel in frame.panels}) == len(frame.panels)
    one = methods_frame(scene, replace(view, methods=("legrad", "attention_flow")))
    assert len(one.panels) == 1 and "attention flow" in one.caption
    traced = methods_frame(scene, replace(view, methods=("legrad",)).with_settings(query=(2, 3)))
    np.testing.assert_allclose(
        traced.panels[0].values,
        explain(scene.model, SCENE, method="legrad", target=1, discard_ratio=0.3, end_block=5).map[
            0
        ],
        rtol=1e-4,
        atol=1e-7,
    )


def test_a_click_on_a_method_shows_it(explorer):
    explorer.tabs.selected_index = 2
    canvas = explorer.panes.methods_canvas
    before = canvas.frame["number"]
    canvas.pointer = {"kind": "click", "panel": 3, "patch": [0, 0], "number": 1}
    assert explorer.view.method == explorer.view.methods[3] and explorer.tabs.selected_index == 0
    explorer.controls.discard_ratio.value = 0.4
    assert canvas.frame["number"] == before  # nobody sees it, nothing is computed
    explorer.tabs.selected_index = 2
    assert canvas.frame["number"] > before and not problem(explorer)


def test_text_is_larger_on_request_and_all_is_in_the_json(explorer, small):
    explorer.controls.large.value = True
    assert explorer.edge.text == explorer.view.text == 1.3
    explorer.show(replace(explorer.view, text=1.7))
    explorer.controls.opacity.value = 0.5
    assert explorer.view.text == 1.7 and explorer.controls.large.value
    explorer.controls.large.value = False
    assert explorer.edge.text == 1
    chosen = {"scale": "percentile", "grid_order": "entropy", "grid_shared": True, "text": 1.5}
    chosen |= {"methods": ["legrad", "raw_attention"]}
    made = explore(small, WIDE, **chosen)
    saved = json.loads(json.dumps(as_keywords(made.view)))
    assert {name: saved[name] for name in chosen} == chosen
    made.close()
    for wrong in ({"scale": "loud"}, {"text": 5}, {"grid_order": "size"}, {"methods": ["x"]}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong)).rstrip('s')}.* must be"):
            explore(small, WIDE, **wrong)


def test_each_knob_says_what_it_does(explorer):
    controls = explorer.controls
    for knob in (*controls.knobs, controls.image, controls.model, controls.keep, controls.cure):
        said = knob.tooltips if hasattr(knob, "tooltips") else [knob.tooltip]
        assert said and (all(said) or knob is controls.cure), knob
    for name in METHODS:
        if name in explorer.session.methods:
            explorer.controls.method.value = name if "flow" not in name else "legrad"
            assert "readout" not in explorer.canvas.frame["panels"][0]["unit"]


def test_pictures_of_the_panes():
    with pytest.raises(ValueError, match="one picture at a time"):
        snapshot("demo", SCENE, grid=True, side_by_side=True)
    figure = snapshot("demo", SCENE, side_by_side=True)
    assert figure.axes[3].get_xlabel().startswith("cat ")
