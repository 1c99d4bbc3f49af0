"""The explorer without a browser: its controls, and what it leaves behind."""

import gc
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from explorers import SCENE, WIDE, problem
from helpers import small_vit, vit_with_a_sink
from ipywidgets.widgets.widget import _instances
from traitlets import HasTraits

from rollout import explain, explore, sweep, wrap_model
from rollout.demo.samples import load_masks, sample_path
from rollout.explanations.kept_maps import Kept
from rollout.explorer import history, open_widgets
from rollout.explorer.curve import sweep_curve
from rollout.explorer.frame import main_frame
from rollout.explorer.knobs import short_names
from rollout.explorer.sources import open_session
from rollout.explorer.view import View, as_keywords
from rollout.settings import Settings

# The controls


def test_each_control_changes_the_view_and_the_picture(explorer):
    controls, start = explorer.controls, explorer.view
    moves = [
        (controls.method, "attention_rollout", lambda view: view.method == "attention_rollout"),
        (controls.head_fusion, "max", lambda view: view.settings.head_fusion == "max"),
        (controls.discard_ratio, 0.3, lambda view: view.settings.discard_ratio == 0.3),
        (controls.blocks, (2, 5), lambda view: view.settings.start_block == 1),
        (controls.blocks, (2, 6), lambda view: view.settings.end_block is None),
        (controls.head, 2, lambda view: view.settings.head == 2),
        (controls.head, -1, lambda view: view.settings.head is None),
        (controls.opacity, 0.25, lambda view: view.opacity == 0.25),
        (controls.shared_scale, False, lambda view: not view.shared_scale),
        (controls.scale, "log", lambda view: view.scale == "log"),
        (controls.legacy, True, lambda view: view.settings.legacy),
    ]
    for control, value, reached in moves:
        number = explorer.canvas.frame["number"]
        control.value = value
        assert reached(explorer.view) and not problem(explorer), control
        assert explorer.canvas.frame["number"] == number + 1
        first = main_frame(explorer.session, explorer.view).panels[0].values
        assert explorer.canvas.maps.startswith(first.astype("<f4").tobytes())
        exec(explorer.code, {"model": explorer.session.model})
    controls.follow.value = False
    controls.reset.click()
    assert explorer.view == start and controls.discard_ratio.value == 0
    assert controls.follow.value and explorer.canvas.follow


def test_the_network_runs_for_a_new_image_or_target_alone(explorer, demo, monkeypatch):
    passes, backwards = [], []
    handle = demo.network.register_forward_hook(lambda *_: passes.append(1))
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **kw: backwards.append(1) or grad(*args, **kw)
    )
    controls = explorer.controls
    for ratio in np.linspace(0, 0.9, 10):
        controls.discard_ratio.value = ratio
    controls.head_fusion.value, controls.blocks.value, controls.head.value = "max", (2, 4), 1
    controls.method.value, controls.opacity.value = "attention_rollout", 0.1
    explorer.canvas.pointer = {"kind": "hover", "panel": 0, "patch": [3, 4], "number": 1}
    assert (len(passes), len(backwards)) == (0, 0)
    controls.method.value = "gradient_rollout"
    controls.classes.wanted = {"target": 1, "number": 1}
    assert (len(passes), len(backwards)) == (0, 1)
    controls.classes.wanted = {"target": 0, "number": 2}
    assert (len(passes), len(backwards)) == (0, 1)  # known from the start
    controls.image.value = "scene_airplane"
    assert len(passes) == 1 and explorer.session.label(explorer.view.target) == "airplane"
    handle.remove()


def test_a_class_is_explained_and_compared(explorer):
    classes = explorer.controls.classes
    probabilities = np.frombuffer(classes.probabilities, "<f4")
    assert classes.labels[probabilities.argmax()] == "cat" and classes.target == 0
    classes.wanted = {"rival": 1, "number": 1}
    assert (classes.target, classes.rival) == (0, 1) and len(explorer.canvas.frame["panels"]) == 3
    classes.wanted = {"target": 1, "number": 2}  # a class is not compared with itself
    assert (explorer.view.target, explorer.view.rival) == (1, None)
    classes.wanted = {"rival": 0, "number": 3}
    explorer.controls.method.value = "attention_rollout"
    assert "the same for every class" in explorer.status.value
    assert not np.frombuffer(explorer.canvas.maps, "<f4").reshape(3, -1)[2].any()
    classes.wanted = {"rival": -1, "number": 4}
    assert explorer.view.rival is None


def test_classes_are_added_to_a_target_and_taken_out(explorer):
    classes, session = explorer.controls.classes, explorer.session
    for number, (index, shown) in enumerate(
        [(5, frozenset({0, 5})), (2, frozenset({0, 2, 5})), (0, frozenset({2, 5})), (5, 2), (2, 2)]
    ):
        classes.wanted = {"toggle": index, "number": number + 1}
        assert explorer.view.target == shown and not problem(explorer)
        several = [shown] if isinstance(shown, int) else sorted(shown)
        assert [classes.target, *classes.also] == several
        labels = " + ".join(session.model.label(one) for one in several)
        assert labels in explorer.canvas.frame["panels"][0]["title"]
        wanted = {shown} if isinstance(shown, int) else set(shown)
        expected = explain(session.model, sample_path(SCENE), target=wanted).map[0]
        found = np.frombuffer(explorer.canvas.maps, "<f4")[:196].reshape(14, 14)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
        exec(explorer.code, {"model": session.model})
    explorer.controls.save.click()
    assert not problem(explorer)


def test_what_takes_long_is_announced_and_what_does_not_is_not(explorer):
    said: list[str] = []
    explorer.status.observe(lambda change: said.append(change["new"]), "value")
    explorer.controls.image.value = "photo_cat"
    assert "Running demo on photo_cat" in said[0] and "rollout-busy" not in said[-1]
    said.clear()
    assert explorer.session.slowest > 0
    for slowest, busy in ((0.01, False), (10.0, True)):
        explorer.session.slowest = slowest
        explorer.controls.classes.wanted = {"target": 3 + busy, "number": busy}
        assert any("Following" in sentence for sentence in said) == busy
        assert explorer.controls.classes.answered == busy
    said.clear()
    explorer.controls.method.value = "attention_flow"
    shares = [share for sentence in said for share in re.findall(r"patch: (\d+)%", sentence)]
    assert "Computing attention flow" in said[0] and len(shares) > 10 and shares[-1] == "100"
    assert "rollout-busy" not in said[-1]


def test_a_method_that_traces_no_patch_says_so(explorer):
    explorer.controls.method.value = "legrad"
    assert not explorer.canvas.follow
    explorer.canvas.pointer = {"kind": "click", "panel": 1, "patch": [2, 3], "number": 1}
    assert "mean over all queries" in explorer.status.value
    assert explorer.view.settings.query is None
    explorer.controls.method.value = "generic_relevance"
    assert explorer.canvas.follow


@pytest.mark.parametrize("method", ["raw_attention", "attention_rollout", "gradient_rollout"])
@pytest.mark.parametrize("rival", [None, 1])
def test_the_browser_gets_the_maps_of_all_patches(explorer, method, rival):
    explorer.controls.blocks.value = 2, 5
    explorer.controls.method.value = method
    explorer.controls.classes.wanted = {"rival": -1 if rival is None else rival, "number": 1}
    explorer.canvas.pointer = {"kind": "hover", "panel": 1, "patch": [2, 3], "number": 1}
    assert explorer.canvas.traced == explorer.canvas.frame["number"]
    traces = np.frombuffer(explorer.canvas.traces, "<f4").reshape(-1, 196, 14, 14)
    settings = replace(explorer.view.settings, query=(2, 3))
    for target, found in zip((0, rival), traces[:, 2 * 14 + 3], strict=False):
        expected = explorer.session.relevance(method, target, settings)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    assert len(traces) == (1 if rival is None else 2)
    explorer.controls.discard_ratio.value = 0.5
    assert explorer.canvas.traced != explorer.canvas.frame["number"]  # they are out of date


def test_a_patch_is_traced_while_hovered_and_kept_when_clicked(explorer):
    explorer.controls.method.value = "attention_rollout"
    explorer.controls.legacy.value = True  # too slow to send all patches at once
    before = explorer.canvas.maps
    explorer.canvas.pointer = {"kind": "hover", "panel": 1, "patch": [2, 3], "number": 1}
    hovered = explorer.canvas.maps
    assert hovered != before and explorer.view.settings.query is None
    explorer.canvas.pointer = {"kind": "leave", "panel": 0, "patch": [0, 0], "number": 2}
    assert explorer.canvas.maps == before
    explorer.canvas.pointer = {"kind": "click", "panel": 1, "patch": [2, 3], "number": 3}
    assert explorer.canvas.maps == hovered and explorer.view.settings.query == (2, 3)
    explorer.canvas.pointer = {"kind": "click", "panel": 1, "patch": [2, 3], "number": 4}
    assert explorer.canvas.maps == before and explorer.view.settings.query is None
    explorer.canvas.pointer = {"kind": "step", "panel": 0, "patch": [0, 1], "number": 5}
    explorer.canvas.pointer = {"kind": "escape", "panel": 0, "patch": [0, 0], "number": 6}
    assert explorer.canvas.maps == before
    explorer.canvas.pointer = {"kind": "hover", "panel": 0, "patch": [99, 0], "number": 7}
    assert problem(explorer)  # a sentence, and the picture stands
    assert explorer.canvas.maps == before


def test_a_click_in_the_grid_shows_that_block_and_head(explorer):
    explorer.tabs.selected_index = 1
    explorer.grid_canvas.pointer = {"kind": "click", "panel": 8, "patch": [0, 0], "number": 1}
    settings = explorer.view.settings
    assert (settings.start_block, settings.end_block, settings.head) == (2, 3, 1)
    assert explorer.tabs.selected_index == 0 and explorer.controls.blocks.value == (3, 3)


def test_play_steps_the_last_block(explorer):
    explorer.controls.blocks.value = 2, 6
    for last in (3, 4):
        explorer.controls.play.value = last
        assert explorer.view.settings.end_block == last and explorer.view.settings.start_block == 1


def test_another_backward_pass_stays_while_it_can(demo):
    explorer = explore(demo, SCENE, backward="libra")
    explorer.controls.discard_ratio.value = 0.3
    assert explorer.view.settings == Settings(discard_ratio=0.3, backward="libra")
    assert "backward='libra'" in explorer.code.replace('"', "'")
    panel = main_frame(explorer.session, explorer.view).panels[0]
    assert panel.title.startswith("gradient rollout, libra: ")
    target = explorer.view.target
    expected = explain(demo, SCENE, target=target, discard_ratio=0.3, backward="libra").map[0]
    np.testing.assert_allclose(panel.values, expected, rtol=1e-4, atol=1e-6)
    explorer.controls.legacy.value = True
    assert explorer.view.settings.backward == "plain" and not problem(explorer)
    explorer.close()


def test_the_curve_marks_the_ratio(explorer):
    explorer.controls.method.value = "attention_rollout"
    explorer.controls.discard_ratio.value = 0.9
    relevance = main_frame(explorer.session, explorer.view).panels[0].values
    found = explorer.session.shares(relevance)["cat"][0]
    assert f"share on the cat&#x27;s mask: {found:.2f}" in explorer.curve.value
    explorer.controls.image.value = "photo_cat"
    assert "rank correlation" in explorer.curve.value and explorer.shares.value == ""


def test_the_curve_has_the_measures_of_a_sweep(demo):
    masks, targets = load_masks(SCENE), {"targets": [1], "head_fusions": ["max"]}
    for image, keys in ((sample_path(SCENE), masks), (sample_path("photo_cat"), {})):
        session = open_session(demo, image, keys)
        view = View("x", "demo", "gradient_rollout", 1, settings=Settings("max", start_block=1))
        curve = sweep_curve(session, view, Kept(2))
        assert curve is not None
        options = {"discard_ratios": curve.ratios, "start_block": 1, **targets}
        coverage = session.coverage or None
        table = sweep(demo, session.recording, methods=[view.method], coverage=coverage, **options)
        column = "target_mass" if keys else "rank_correlation"
        np.testing.assert_allclose(curve.values, table[column], rtol=1e-6)


def test_a_slow_methods_curve_goes_through_what_was_shown(small, tmp_path, monkeypatch):
    made = explore(small, WIDE, method="attention_flow", output_folder=tmp_path)
    assert "rank correlation with ratio 0: 1.00" in made.curve.value
    monkeypatch.setattr(type(made.session), "takes", lambda *_: 10.0)
    dots = made.curve.value.count("<circle")
    for ratio in (0.35, 0.75):
        made.controls.discard_ratio.value = ratio
        assert ratio in sweep_curve(made.session, made.view, Kept(1)).ratios
    assert dots > 1 and not problem(made)
    made.close()


def test_a_network_without_a_classifier_and_old_arithmetic_have_a_curve(explorer, tmp_path):
    explorer.controls.discard_ratio.value = 0.5
    explorer.controls.legacy.value = True
    assert "mask: " in explorer.curve.value and not problem(explorer)
    tower = wrap_model(small_vit(num_classes=0), name="tower")
    made = explore(tower, WIDE, output_folder=tmp_path)
    assert "rank correlation" in made.curve.value
    made.close()


def test_a_score_is_followed_under_its_name(small, tmp_path):
    def brightness(features):
        return features.square().sum(dim=-1)

    made = explore(
        small, WIDE, score=brightness, score_name="energy", rival=None, output_folder=tmp_path
    )
    assert made.view.method == "gradient_rollout" and made.view.target is None
    assert made.canvas.frame["panels"][0]["title"] == "gradient rollout: energy"
    names = {"model": small, "image": WIDE, "score": brightness}
    exec(made.code, names)
    found = np.frombuffer(made.canvas.maps, "<f4")[:24].reshape(4, 6)
    np.testing.assert_allclose(names["explanation"].map[0], found, rtol=1e-6)
    assert "rank correlation" in made.curve.value
    settings = as_keywords(made.view)
    assert settings["score_name"] == "energy"
    made.close()
    for settings in ({"score_name": "energy"}, {"score": brightness, "target": 2}):
        with pytest.raises(ValueError, match="score"):
            explore(small, WIDE, output_folder=tmp_path, **settings)


def test_the_dropdown_shows_a_file_by_its_name():
    named = short_names(["scene_cat_dog", "../runs/07_explorer/uploads/mine.png"])
    assert [shown for shown, _ in named] == ["scene_cat_dog", "mine.png"]
    assert named[1][1] == "../runs/07_explorer/uploads/mine.png"


def test_undo_goes_back_step_by_step_and_a_drag_is_one_step(explorer, monkeypatch):
    controls, clock = explorer.controls, iter(np.arange(0, 1000, 0.1))
    monkeypatch.setattr(history, "monotonic", lambda: next(clock))
    seen = [explorer.view]
    for ratio in (0.1, 0.2, 0.3):
        controls.discard_ratio.value = ratio
    seen.append(explorer.view)
    controls.head_fusion.value = "max"
    seen.append(explorer.view)
    controls.image.value = "photo_cat"
    for before in reversed(seen):
        controls.undo.click()
        assert explorer.view == before and not problem(explorer)
        assert controls.image.value == before.image
        assert controls.discard_ratio.value == before.settings.discard_ratio
    controls.undo.click()
    assert explorer.view == seen[0] and "Nothing to undo" in explorer.status.value


def test_one_click_takes_away_what_dominates(tmp_path):
    model = wrap_model(vit_with_a_sink((2, 4)), labels=list("abcdefg"), name="sink")
    made = explore(model, WIDE, method="attention_rollout", output_folder=tmp_path)
    cure = made.controls.cure
    assert cure.layout.display == "" and cure.description == "Leave block 1 out"
    assert "try start_block=1" in made.status.value
    cure.click()
    assert made.view.settings.start_block == 1 and cure.layout.display == "none"
    assert "start_block" not in made.status.value
    made.controls.undo.click()
    assert cure.layout.display == ""
    made.close()


def test_a_picture_names_what_made_it(explorer):
    explorer.show(explorer.view.with_settings(head=1, start_block=1, end_block=4))
    explorer.controls.discard_ratio.value = 0.25
    assert explorer.canvas.frame["caption"] == "blocks 2 to 4 of 6, head 2 of 3, discard ratio 0.25"
    title = explorer.figure().get_suptitle().replace("\n", " ")
    assert title == f"demo on scene_cat_dog: {explorer.canvas.frame['caption']}"


# Nothing stays behind


def test_only_the_last_explorers_stay_alive_and_the_others_say_so(demo, tmp_path, monkeypatch):
    drawn: list[str] = []
    made = []
    for _ in range(open_widgets.MOST + 2):
        made.append(explore(demo, SCENE, output_folder=tmp_path))
        monkeypatch.setattr(made[-1].still, "update", drawn.append)
    recording = weakref.ref(made[2].session.recording)
    assert [one.session is None for one in made] == [True] * 2 + [False] * open_widgets.MOST
    assert drawn == [open_widgets.RETIRED] * 2
    with pytest.raises(RuntimeError, match="keeps the last 4 explorers"):
        made[0].figure()
    for one in made:
        one.close()
    gc.collect()
    assert recording() is None


def test_closing_frees_the_recording_and_every_widget(demo, tmp_path):
    gc.collect()
    before = len(_instances)
    made = explore(demo, SCENE, output_folder=tmp_path)
    made.controls.discard_ratio.value = 0.5
    recording = weakref.ref(made.session.recording)
    made.close()
    made.close()
    gc.collect()
    assert recording() is None
    assert len(_instances) == before
    assert not any(module._forward_hooks for module in demo.network.modules())
    made.controls.discard_ratio.value = 0.6  # a dead widget does nothing, and says nothing


def test_running_a_cell_again_closes_what_it_opened(monkeypatch, demo, tmp_path):
    request = {"content": {"code": "explore()"}, "metadata": {}, "header": {"msg_id": "1"}}
    shell = type("Shell", (), {"get_parent": lambda self: request})
    monkeypatch.setattr(open_widgets, "get_ipython", shell)

    def opened(cell, run):
        request["metadata"], request["header"] = {"cellId": cell}, {"msg_id": run}
        return explore(demo, SCENE, output_folder=tmp_path)

    first, beside, other = opened("a", "1"), opened("a", "1"), opened("b", "2")
    again = opened("a", "3")
    assert first.session is None and beside.session is None
    assert other.session is not None and again.session is not None
    for made in (other, again):
        made.close()
    assert not any(applications for _, applications in open_widgets._open.values())


def test_a_widget_that_is_used_after_its_end_says_so(explorer):
    assert isinstance(explorer, HasTraits)
    explorer.session = None
    explorer.controls.discard_ratio.value = 0.7
    assert "its cell ran again" in explorer.status.value
