"""The numbers of the explorer are those of `explain`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from explorers import SCENE, WIDE
from helpers import small_vit, vit_with_a_sink

from rollout import explain, wrap_model
from rollout.demo.samples import load_coverage, load_masks, sample_path
from rollout.explanations.kept_maps import MOST_TARGETS, Kept
from rollout.explanations.methods import CHAINED
from rollout.explanations.recording import record_model
from rollout.explorer.figure import plot_frame
from rollout.explorer.frame import main_frame
from rollout.explorer.grid import grid_frame
from rollout.explorer.messages import described
from rollout.explorer.sources import open_session
from rollout.explorer.view import View
from rollout.maths.metrics import mass_on_object
from rollout.settings import METHODS, Settings


@pytest.mark.parametrize("method", CHAINED)
@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("max", 0.3),
        Settings("min", 0.9, start_block=1),
        Settings("mean", 0.5, end_block=2, head=1),
        Settings("mean", 0.2, query=(3, 5)),
        Settings("max", 0.0, 1, 3, 2, (0, 4)),
    ],
    ids=str,
)
def test_a_session_has_the_maps_of_explain(small, method, settings):
    if not METHODS[method].traces:
        settings = replace(settings, query=None)
    session = open_session(small, WIDE)
    for ratio in (
        settings.discard_ratio,
        0.7,
        settings.discard_ratio,
    ):  # the last from what is kept
        one = replace(settings, discard_ratio=ratio)
        expected = explain(small, WIDE, method=method, target=4, **vars(one)).map[0].numpy()
        np.testing.assert_allclose(session.relevance(method, 4, one), expected, rtol=1e-6)


def test_a_session_has_the_flow_of_explain(small):
    told = []
    session = open_session(small, WIDE)
    session.progress = told.append
    settings = Settings(discard_ratio=0.2, end_block=2)
    expected = explain(small, WIDE, method="attention_flow", **vars(settings)).map[0].numpy()
    np.testing.assert_allclose(session.relevance("attention_flow", None, settings), expected)
    assert told[-1] == 1 and told == sorted(told)


def test_a_session_refuses_what_explain_refuses(small):
    session = open_session(small, WIDE)
    with pytest.raises(ValueError, match="start_block must be in"):
        session.relevance("attention_rollout", 0, Settings(start_block=7))
    with pytest.raises(ValueError, match="head must be in"):
        session.relevance("raw_attention", 0, Settings(head=3))
    with pytest.raises(ValueError, match="square patch grid"):
        session.relevance("attention_rollout", 0, Settings(legacy=True))
    with pytest.raises(ValueError, match="legrad is the mean over all queries"):
        session.relevance("legrad", 0, Settings(query=(0, 1)))


@pytest.mark.parametrize("method", CHAINED)
def test_all_patches_are_traced_at_once_as_one_by_one(small, method):
    session, settings = open_session(small, WIDE), Settings("max", 0.4, start_block=1)
    traces = session.traces(method, 4, settings)
    if not METHODS[method].traces:
        assert traces is None
        return
    for patch in [(0, 0), (2, 5)]:
        one = session.relevance(method, 4, replace(settings, query=patch))
        found = traces[patch[0] * 6 + patch[1]].reshape(4, 6)
        np.testing.assert_allclose(found, one, rtol=1e-5, atol=1e-9)


def test_the_legacy_arithmetic_is_that_of_explain(demo):
    session = open_session(demo, sample_path(SCENE))
    settings = Settings(discard_ratio=0.9, legacy=True)
    expected = explain(demo, sample_path(SCENE), target="dog", discard_ratio=0.9, legacy=True)
    found = session.relevance("gradient_rollout", 1, settings)
    np.testing.assert_array_equal(found, expected.map[0].numpy())


def test_the_grid_has_each_block_and_head_alone(small):
    session = open_session(small, WIDE)
    view = View("w", "small", "attention_rollout", 0, settings=Settings(discard_ratio=0.4))
    frame = grid_frame(session, view)
    assert len(frame.panels) == 9 and frame.across == 3
    alone = explain(
        small,
        WIDE,
        method="attention_rollout",
        discard_ratio=0.4,
        start_block=1,
        end_block=2,
        head=2,
    )
    np.testing.assert_array_equal(frame.panels[7].values, alone.map[0].numpy())
    assert [panel.high for panel in frame.panels] == [panel.values.max() for panel in frame.panels]
    shared = grid_frame(session, replace(view, grid_shared=True))
    assert len({panel.high for panel in shared.panels}) == 1


def test_a_map_that_is_0_does_not_set_the_scale_of_the_others(small, monkeypatch):
    session, view = open_session(small, WIDE), View("w", "small", "attention_rollout", 0)
    grid = session.grid(view.method, 0, view.settings).copy()
    grid[1, 2] = 0
    monkeypatch.setattr(session, "grid", lambda *_: grid)
    shared = grid_frame(session, replace(view, grid_shared=True))
    assert {panel.high for panel in shared.panels} == {float(grid.max())}
    own = grid_frame(session, view)
    assert own.panels[7].high == 1 and own.panels[4].high == grid[1, 1].max()
    assert own.bar(own.panels[-1]) == (0, 1)


def test_two_targets_share_a_scale_and_their_difference_is_signed(demo):
    session = open_session(demo, sample_path(SCENE))
    frame = main_frame(session, View(SCENE, "demo", target=0, rival=1))
    cat, dog, difference = frame.panels
    np.testing.assert_array_equal(difference.values, cat.values - dog.values)
    assert cat.high == dog.high == max(cat.values.max(), dog.values.max())
    assert (difference.low, difference.high) == (-cat.high, cat.high)


def test_a_traced_patch_does_not_set_the_scale(small):
    session = open_session(small, WIDE)
    view = View("w", "small", "attention_rollout", 0, settings=Settings(query=(2, 3)))
    panel = main_frame(session, view).panels[0]
    others = panel.values.copy()
    others[2, 3] = 0
    assert panel.values.argmax() == 2 * 6 + 3 and panel.high == others.max()


@pytest.mark.parametrize("shared", [True, False])
def test_a_patch_that_dominates_does_not_set_the_scale_and_is_named(shared):
    model = wrap_model(vit_with_a_sink((2, 4)), labels=list("abcdefg"), name="sink")
    session = open_session(model, WIDE)
    view = View("w", "sink", "attention_rollout", 0, shared_scale=shared)
    panel, bare = main_frame(session, view).panels
    rest = np.sort(panel.values, axis=None)[-2]
    assert panel.high == bare.high == rest < panel.values.max() / 4
    assert panel.above(None) == [(2, 4)] and panel.above((2, 4)) == []
    said = explain(model, WIDE, method="attention_rollout").dominated()
    assert f"R{said[1:]}." in described(session, view) and "try start_block=1" in said
    assert said[1:] not in described(session, view.with_settings(start_block=1))
    traced = main_frame(session, view.with_settings(query=(2, 4))).panels[0]
    assert (2, 4) not in traced.above((2, 4))
    rivals = replace(view, rival=1)
    assert (
        described(session, rivals).count("row 2") + described(session, rivals).count("Row 2") == 1
    )


def test_a_figure_of_the_frame_marks_what_is_above_its_scale():
    model = wrap_model(vit_with_a_sink((2, 4)), labels=list("abcdefg"), name="sink")
    session = open_session(model, WIDE)
    frame = main_frame(session, View("w", "sink", "attention_rollout", 0))
    figure = plot_frame(frame, session.picture())
    over, bare = figure.axes[:2]
    height, width = session.picture().shape[:2]
    for ax in (over, bare):
        assert ax.patches[0].get_xy() == (4 * width / 6 - 0.5, 2 * height / 4 - 0.5)
        assert [text.get_text() for text in ax.texts] == [f"{frame.panels[0].values.max():.2g}"]


def test_the_answer_key_is_seen_as_the_model_sees_the_image(demo):
    session = open_session(demo, sample_path(SCENE), load_masks(SCENE))
    coverage = load_coverage(SCENE, session.grid_size)
    relevance = session.relevance("attention_rollout", 0, Settings())
    for label, (mass, area) in session.shares(relevance).items():
        expected = mass_on_object(torch.from_numpy(relevance)[None], coverage[label]).item()
        assert mass == pytest.approx(expected, abs=1e-3)
        assert area == pytest.approx(coverage[label].mean().item(), abs=1e-3)
    wide = wrap_model(small_vit(), name="small")  # crops the scene's sides or top
    assert open_session(wide, sample_path(SCENE), load_masks(SCENE)).coverage["cat"].shape == (4, 6)


def test_only_the_last_results_are_kept():
    kept, computed = Kept(2), []
    for key in (1, 2, 1, 3, 1, 2):
        assert kept.get(key, lambda key=key: computed.append(key) or -key) == -key
    assert computed == [1, 2, 3, 2]


def test_gradients_of_many_targets_do_not_pile_up(small):
    session = open_session(small, WIDE)
    for target in list(range(7)) * 3:
        session.relevance("gradient_rollout", target, Settings())
    demo_like = open_session(wrap_model(small_vit(num_classes=40)), WIDE)
    for target in range(40):
        demo_like.relevance("gradient_rollout", target, Settings())
    assert len(demo_like.recording._gradients) <= MOST_TARGETS + 1


def test_the_recording_is_that_of_the_image(explorer, demo):
    fresh = record_model(demo, sample_path(SCENE))
    torch.testing.assert_close(explorer.session.recording.record.logits, fresh.record.logits)
