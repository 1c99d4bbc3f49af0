"""Any two views beside each other: what is drawn, said, taken away and freed."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from explorers import SCENE, WIDE, problem
from helpers import small_vit
from scipy.stats import spearmanr

from rollout import explain, explore, wrap_model
from rollout.explorer.comparing import WORDS, agreement
from rollout.explorer.explore import snapshot
from rollout.explorer.frame import main_frame
from rollout.explorer.view import as_keywords
from rollout.settings import Settings


def shown(explorer):
    return main_frame(explorer.session, explorer.view)


def kept_panel(explorer):
    return shown(explorer).panels[1]


def test_what_is_kept_stays_and_what_moves_is_compared_with_it(explorer):
    first, controls = shown(explorer).panels[0].values, explorer.controls
    controls.keep.click()
    now, kept, difference = shown(explorer).panels
    assert not difference.values.any() and kept.title == "kept: the same"
    assert (
        controls.keep.description == "Let go" and "Rank correlation 1.00" in explorer.status.value
    )
    controls.method.value = "attention_rollout"
    controls.discard_ratio.value = 0.5
    now, kept, difference = shown(explorer).panels
    np.testing.assert_array_equal(kept.values, first)
    np.testing.assert_array_equal(difference.values, now.values - first)
    assert (now.title, kept.title) == (
        "now: attention rollout, discard ratio 0.5",
        "kept: gradient rollout, cat, discard ratio 0",
    )
    found = spearmanr(now.values.ravel(), first.ravel()).statistic
    assert f"Rank correlation {found:.2f}" in explorer.status.value
    assert f"Rank correlation {found:.2f}" in explorer.figure().get_suptitle()
    assert "<th>&emsp;kept</th>" in explorer.shares.value
    controls.undo.click()
    assert kept_panel(explorer).title.startswith("kept: gradient rollout")
    controls.keep.click()
    assert explorer.view.compare_with is None and len(shown(explorer).panels) == 2
    assert controls.keep.description == "Keep" and not problem(explorer)


def test_scales_are_shared_or_own_and_own_differences_are_of_shares(explorer):
    explorer.controls.keep.click()
    explorer.controls.method.value = "legrad"
    now, kept, difference = shown(explorer).panels
    assert now.high == kept.high == difference.high
    assert "different things" in explorer.status.value
    assert explorer.controls.cure.description == "Compare on own scales"
    explorer.controls.cure.click()
    now, kept, difference = shown(explorer).panels
    assert (now.high, kept.high) == (now.values.max(), kept.values.max())
    shares = [one.values / one.values.sum() for one in (now, kept)]
    np.testing.assert_allclose(difference.values, shares[0] - shares[1], atol=1e-7)
    assert difference.values.sum() == pytest.approx(0, abs=1e-4)


def test_another_image_lies_under_the_kept_map_and_one_recording_more_is_kept(explorer):
    cats = explorer.session.picture()
    first = weakref.ref(explorer.session)
    explorer.controls.keep.click()
    explorer.controls.image.value = "photo_cat"
    frame, canvas = shown(explorer), explorer.canvas
    np.testing.assert_array_equal(frame.panels[1].ground.picture, cats)
    assert canvas.other_picture and canvas.frame["panels"][1]["other"]
    second = weakref.ref(explorer.session)
    explorer.controls.image.value = "scene_airplane"
    gc.collect()
    assert first() is not None and second() is None
    canvas.pointer = {"kind": "click", "panel": 1, "patch": [2, 3], "number": 1}
    assert explorer.view.settings.query is None and "left map" in explorer.status.value
    explorer.controls.keep.click()
    gc.collect()
    assert first() is None and not canvas.other_picture and not problem(explorer)
    explorer.controls.undo.click()  # the kept view comes back with its recording
    np.testing.assert_array_equal(kept_panel(explorer).ground.picture, cats)
    explorer.controls.image.value = SCENE
    assert explorer.session.beside is None  # both views are of one recording again


def test_models_with_other_grids_have_no_difference_and_it_is_said(demo, small, tmp_path):
    other = {"model": small, "image": WIDE, "method": "attention_rollout", "head": 2}
    made = explore(demo, SCENE, compare_with=other, output_folder=tmp_path)
    frame = shown(made)
    assert [panel.values.shape for panel in frame.panels] == [(14, 14), (4, 6)]
    assert (
        "14 \u00d7 14 and 4 \u00d7 6 patches" in made.status.value and "no difference" in frame.said
    )
    expected = explain(small, WIDE, method="attention_rollout", head=2).map[0]
    np.testing.assert_allclose(frame.panels[1].values, expected, rtol=1e-5)
    assert len(made.canvas.maps) == 4 * (196 + 24)
    assert [made.canvas.frame["panels"][1][name] for name in ("rows", "columns")] == [4, 6]
    assert "small" in made.controls.model.options
    made.controls.save.click()
    (table,) = (tmp_path).glob("*.csv")
    assert len(pd.read_csv(table)) == 196 + 24
    names = {"model": demo, "kept_model": small, "kept_image": WIDE}
    exec(made.code, names)
    np.testing.assert_allclose(names["kept"].map[0], frame.panels[1].values, rtol=1e-5)
    assert "difference" not in names
    made.close()


def test_two_checkpoints_of_one_architecture_have_two_names(tmp_path):
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(wrap_model(small_vit(), name="small"))
    made = explore(models[0], WIDE, compare_with={"model": models[1]}, output_folder=tmp_path)
    now, kept, _ = shown(made).panels
    assert (now.title[:10], kept.title[:15]) == ("now: small", "kept: small (2)")
    for panel, model in ((now, models[0]), (kept, models[1])):
        expected = explain(model, WIDE, method="gradient_rollout").map[0]
        np.testing.assert_allclose(panel.values, expected, rtol=1e-5)
    made.controls.model.value = "small (2)"
    assert made.session.beside is None and made.session.model is models[1] and not problem(made)
    made.close()


def test_a_kept_view_is_in_the_json_and_in_the_code(explorer):
    explorer.controls.keep.click()
    explorer.controls.method.value = "attention_rollout"
    explorer.controls.shared_scale.value = False
    explorer.controls.classes.wanted = {"target": 1, "number": 1}
    assert explorer.view.compare_with is not None
    settings = json.loads(json.dumps(as_keywords(explorer.view)))
    assert settings["compare_with"]["method"] == "gradient_rollout"
    again = explore(**settings)
    given = {"given": frozenset({"model"})}
    kept = replace(again.view.compare_with, **given)
    assert replace(again.view, compare_with=kept, **given) == explorer.view
    again.close()
    names: dict = {"model": explorer.session.model}
    exec(explorer.code, names)
    now, kept, difference = shown(explorer).panels
    np.testing.assert_allclose(names["kept"].map[0], kept.values, rtol=1e-5)
    np.testing.assert_allclose(names["difference"][0], difference.values, rtol=1e-3, atol=1e-7)
    found = spearmanr(now.values.ravel(), kept.values.ravel()).statistic
    assert float(names["agreement"]) == pytest.approx(found, abs=1e-6)
    del settings["model"], settings["image"]
    figure = snapshot(explorer.session.model, SCENE, **settings)
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]][2] == "now minus kept"


def test_a_class_beside_another_takes_the_place_of_a_kept_view(explorer):
    explorer.controls.keep.click()
    explorer.controls.classes.wanted = {"rival": 1, "number": 1}
    assert (explorer.view.rival, explorer.view.compare_with) == (1, None)
    explorer.controls.keep.click()
    assert explorer.view.rival is None and explorer.view.compare_with.rival is None


def test_hovering_reads_both_maps_and_traces_none(explorer):
    assert explorer.canvas.follow
    explorer.controls.keep.click()
    assert not explorer.canvas.follow
    explorer.canvas.pointer = {"kind": "click", "panel": 0, "patch": [2, 3], "number": 1}
    assert explorer.view.settings == Settings(query=(2, 3))
    assert explorer.view.compare_with.settings == Settings()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rival": 1}, "single map"),
        ({"compare_with": {"head": 1}}, "single map"),
        ({"discard": 0.5}, "unexpected setting 'discard'"),
        (3, "must be the keywords of a view"),
        ({"head": 7}, "head must be in"),
    ],
)
def test_a_mistake_in_the_other_view_is_a_sentence(small, other, said):
    with pytest.raises((TypeError, ValueError), match=said):
        explore(small, WIDE, compare_with=other)
    with pytest.raises(ValueError, match="two single maps"):
        explore(small, WIDE, target=1, rival=2, compare_with={"head": 1})


def test_the_words_follow_the_rank_correlation():
    order = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert WORDS[0][1] in agreement(order, order**3) and "1.00" in agreement(order, order**3)
    assert WORDS[-1][1] in agreement(order, -order)
    assert "same everywhere" in agreement(order, np.zeros_like(order))
