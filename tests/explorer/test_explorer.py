"""The explorer without a browser: its maps are those of `explain`, and it never breaks."""

import base64
import gc
import io
import json
import re
import weakref
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest
import torch
from helpers import small_vit
from ipywidgets.widgets.widget import _instances
from nbconvert import HTMLExporter
from PIL import Image
from traitlets import HasTraits

from rollout import explain, explore, load_model, wrap_model
from rollout.demo.samples import load_coverage, load_masks, sample_path
from rollout.explanations.kept_maps import MOST_TARGETS, Kept
from rollout.explanations.recording import record_model
from rollout.explorer import open_widgets
from rollout.explorer.controls import short_names
from rollout.explorer.frame import grid_frame, main_frame
from rollout.explorer.sources import open_session
from rollout.explorer.view import View, as_code, as_keywords, from_keywords
from rollout.maths.metrics import mass_on_object
from rollout.settings import Settings

SCENE = "scene_cat_dog"
WIDE = Image.effect_noise((48, 32), 60).convert("RGB")


@pytest.fixture(scope="module")
def demo():
    return load_model("demo")


@pytest.fixture(scope="module")
def small():
    """A grid of 4 x 6 patches, three blocks of three heads."""
    torch.manual_seed(0)
    return wrap_model(small_vit(), labels=list("abcdefg"), name="small")


@pytest.fixture
def explorer(demo, tmp_path):
    made = explore(demo, SCENE, output_folder=tmp_path / "saved")
    yield made
    made.close()


def upload(explorer, name, content, slices=1):
    """What the browser sends of a file."""
    size = -(-len(content) // slices)
    for index in range(slices):
        message = {"name": name, "index": index, "total": slices}
        part = memoryview(content)[index * size : (index + 1) * size]
        explorer.controls.upload._handle_custom_msg(message, [part])


def problem(explorer):
    return "rollout-problem" in explorer.status.value


# Its numbers are those of `explain`


@pytest.mark.parametrize("method", ["raw_attention", "attention_rollout", "gradient_rollout"])
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
    np.testing.assert_array_equal(frame.panels[5].values, alone.map[0].numpy())
    assert len({panel.high for panel in frame.panels}) == 1
    own = grid_frame(session, replace(view, shared_scale=False))
    assert [panel.high for panel in own.panels] == [panel.values.max() for panel in own.panels]


def test_a_map_that_is_0_does_not_set_the_scale_of_the_others(small, monkeypatch):
    session, view = open_session(small, WIDE), View("w", "small", "attention_rollout", 0)
    grid = session.grid(view.method, 0, view.settings).copy()
    grid[1, 2] = 0
    monkeypatch.setattr(session, "grid", lambda *_: grid)
    assert {panel.high for panel in grid_frame(session, view).panels} == {float(grid.max())}
    own = grid_frame(session, replace(view, shared_scale=False))
    assert own.panels[5].high == 1 and own.panels[4].high == grid[1, 1].max()
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


# Take it away


VIEWS = [
    View(SCENE, "demo", target=1),
    View(SCENE, "demo", target=0, rival=1, settings=Settings("max", 0.35)),
    View("photo_cat", "demo", "attention_rollout", 3, settings=Settings("min", 0.9, 1, 4, 2)),
    View(SCENE, "demo", "raw_attention", 0, settings=Settings(query=(4, 7))),
    View(SCENE, "demo", "gradient_rollout", 1, settings=Settings(discard_ratio=0.9, legacy=True)),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.method} {view.settings}")
def test_the_copied_code_makes_the_view(demo, view):
    names: dict = {}
    exec(as_code(view, "the target", "the rival"), names)
    frame = main_frame(open_session(demo, sample_path(view.image)), view)
    found = names["explanation"].map[0].numpy()
    np.testing.assert_allclose(found, frame.panels[0].values, rtol=1e-6)
    if view.rival is not None:
        difference = names["difference"][0].numpy()
        np.testing.assert_allclose(difference, frame.panels[2].values, rtol=1e-4, atol=1e-7)


def test_code_names_what_only_the_caller_has(small):
    view = View("the given image", "small", target=2, given=frozenset({"model", "image"}))
    names = {"model": small, "image": WIDE}
    exec(as_code(view), names)
    assert names["explanation"].target == (2,)
    strange = View('odd "name"\\x.png', "demo", target=0)
    line = next(line for line in as_code(strange).splitlines() if line.startswith("image = "))
    assert eval(line.removeprefix("image = ")) == strange.image


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.method} {view.settings}")
def test_a_view_survives_json(view):
    keywords = json.loads(json.dumps(as_keywords(view)))
    model, image = keywords.pop("model"), keywords.pop("image")
    assert from_keywords(image, model, frozenset(), keywords) == view


def test_an_unknown_setting_is_named():
    with pytest.raises(TypeError, match="unexpected setting 'discard'.*discard_ratio"):
        explore("demo", SCENE, discard=0.5)
    with pytest.raises(ValueError, match="opacity must be in"):
        explore("demo", SCENE, opacity=2)


def test_saving_writes_picture_and_settings_and_overwrites_no_other_view(explorer, tmp_path):
    for ratio in (0.4, 0.3, 0.4):
        explorer.controls.discard_ratio.value = ratio
        explorer.controls.save.click()
    assert not problem(explorer) and "Saved" in explorer.status.value
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    stem = "scene_cat_dog_gradient_rollout_cat"
    assert names == sorted(
        f"{stem}{two}.{kind}" for two in ("", "_2") for kind in ("png", "pdf", "json")
    )
    assert (tmp_path / "saved" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    again = explore(**json.loads((tmp_path / "saved" / f"{stem}.json").read_text()))
    assert again.view.settings == explorer.view.settings and again.view.image == SCENE
    again.close()


def test_a_page_without_a_kernel_gets_the_picture_of_the_open_tab(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    map_shape = matplotlib.image.imread(io.BytesIO(base64.b64decode(bundle["image/png"]))).shape
    explorer.tabs.selected_index = 1
    png = base64.b64decode(explorer._repr_mimebundle_()["image/png"])
    assert matplotlib.image.imread(io.BytesIO(png)).shape != map_shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_page_has_the_picture(explorer):
    data = explorer._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data)
    cell = nbformat.v4.new_code_cell("explorer", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert f'src="data:image/png;base64,{data["image/png"]}"' in page.replace("\n", "")


# The controls


def test_each_control_changes_the_view_and_the_picture(explorer):
    controls = explorer.controls
    moves = [
        (controls.method, "attention_rollout", lambda view: view.method == "attention_rollout"),
        (controls.head_fusion, "max", lambda view: view.settings.head_fusion == "max"),
        (controls.discard_ratio, 0.3, lambda view: view.settings.discard_ratio == 0.3),
        (controls.blocks, (2, 5), lambda view: view.settings.start_block == 1),
        (controls.blocks, (2, 6), lambda view: view.settings.end_block is None),
        (controls.head, 2, lambda view: view.settings.head == 2),
        (controls.head, -1, lambda view: view.settings.head is None),
        (controls.opacity, 0.25, lambda view: view.opacity == 0.25),
        (controls.scale, False, lambda view: not view.shared_scale),
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
    controls.reset.click()
    assert explorer.view.settings == Settings() and controls.discard_ratio.value == 0


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
    assert "Solving the flow" in said[0] and len(shares) > 10 and shares[-1] == "100"
    assert "rollout-busy" not in said[-1]


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
    explorer.grid_canvas.pointer = {"kind": "click", "panel": 7, "patch": [0, 0], "number": 1}
    settings = explorer.view.settings
    assert (settings.start_block, settings.end_block, settings.head) == (2, 3, 1)
    assert explorer.tabs.selected_index == 0 and explorer.controls.blocks.value == (3, 3)


def test_play_steps_the_last_block(explorer):
    explorer.controls.blocks.value = 2, 6
    for last in (3, 4):
        explorer.controls.play.value = last
        assert explorer.view.settings.end_block == last and explorer.view.settings.start_block == 1


def test_the_curve_marks_the_ratio_and_is_left_out_where_it_takes_long(explorer):
    explorer.controls.method.value = "attention_rollout"
    explorer.controls.discard_ratio.value = 0.9
    relevance = main_frame(explorer.session, explorer.view).panels[0].values
    found = explorer.session.shares(relevance)["cat"][0]
    assert f"share on the cat&#x27;s mask: {found:.2f}" in explorer.curve.value
    explorer.controls.image.value = "photo_cat"
    assert "rank correlation" in explorer.curve.value and explorer.shares.value == ""
    explorer.controls.legacy.value = True
    assert explorer.curve.value == "" and not problem(explorer)


# Mistakes


def test_what_cannot_be_done_is_a_sentence_and_changes_nothing(explorer):
    controls, view, maps = explorer.controls, explorer.view, explorer.canvas.maps
    mistakes = [
        (controls.model, "no_such_network", "unknown model"),
        (controls.model, "swin_tiny_patch4_window7_224", ""),
        ("notes.txt", b"no image", "notes.txt is not an image"),
        ("cut.png", sample_path(SCENE).read_bytes()[:900], "cut.png"),
    ]
    for what, value, words in mistakes:
        if isinstance(what, str):
            upload(explorer, what, value)
        else:
            what.value = value
        assert problem(explorer) and words in explorer.status.value, what
        assert (explorer.view, explorer.canvas.maps) == (view, maps)
        assert (controls.model.value, controls.image.value) == ("demo", SCENE)
    controls.discard_ratio.value = 0.5
    assert not problem(explorer) and explorer.view.settings.discard_ratio == 0.5


def test_a_method_that_cannot_be_done_is_a_sentence(explorer, small, tmp_path):
    explorer.controls.head_fusion.value = "max"
    explorer.controls.legacy.value = True
    assert "knows only head_fusion" in explorer.status.value
    assert "untick the arithmetic" in explorer.status.value
    assert not explorer.controls.legacy.value and not explorer.view.settings.legacy
    wide = explore(small, WIDE, output_folder=tmp_path)
    wide.controls.legacy.value = True
    assert "square patch grid" in wide.status.value and not wide.view.settings.legacy
    wide.close()


def test_weights_out_of_reach_are_a_sentence(explorer):
    explorer.controls.model.value = "vit_tiny_patch16_224"
    assert problem(explorer) and explorer.controls.model.value == "demo"


PICTURES = {
    "one.png": ("RGB", (1, 1), {}),
    "tall.jpg": ("L", (30, 700), {}),
    "sixteen.tif": ("I;16", (50, 40), {}),
    "print.tif": ("CMYK", (64, 20), {}),
    "drawing.png": ("RGBA", (300, 200), {}),
    "few.gif": ("P", (33, 44), {}),
    "bits.bmp": ("1", (17, 19), {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_any_picture_can_be_uploaded(explorer, name):
    mode, size, options = PICTURES[name]
    stream = io.BytesIO()
    kind = Image.registered_extensions()[Path(name).suffix]
    Image.new(mode, size).save(stream, kind, **options)
    upload(explorer, f"../{name}", stream.getvalue(), slices=3)
    assert not problem(explorer), explorer.status.value
    path = explorer.output_folder / "uploads" / name
    assert explorer.view.image == str(path) and path.read_bytes() == stream.getvalue()
    names: dict = {}
    exec(explorer.code, {"model": explorer.session.model}, names)
    found = explorer.session.relevance("gradient_rollout", explorer.view.target, Settings())
    np.testing.assert_allclose(names["explanation"].map[0].numpy(), found, rtol=1e-6)


def test_a_transfer_that_broke_off_does_not_spoil_the_next(explorer):
    content = sample_path("photo_cat").read_bytes()
    send = explorer.controls.upload._handle_custom_msg
    send({"name": "lost.png", "index": 0, "total": 3}, [memoryview(content)[:900]])
    assert not problem(explorer) and explorer.view.image == SCENE
    upload(explorer, "mine.jpg", content, slices=2)
    assert not problem(explorer) and explorer.view.image.endswith("mine.jpg")


def test_a_network_without_a_classifier(tmp_path):
    features = wrap_model(small_vit(num_classes=0), name="features")
    made = explore(features, WIDE, method="attention_rollout", output_folder=tmp_path)
    assert made.view.target is None and made.controls.classes.labels == []
    made.controls.method.value = "gradient_rollout"
    assert problem(made) and made.view.method == "attention_rollout"
    made.close()


# Nothing stays behind


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
    assert "closed when its cell ran again" in explorer.status.value


def test_the_recording_is_that_of_the_image(explorer, demo):
    fresh = record_model(demo, sample_path(SCENE))
    torch.testing.assert_close(explorer.session.recording.record.logits, fresh.record.logits)


def test_the_dropdown_shows_a_file_by_its_name():
    named = short_names(["scene_cat_dog", "../runs/07_explorer/uploads/mine.png"])
    assert [shown for shown, _ in named] == ["scene_cat_dog", "mine.png"]
    assert named[1][1] == "../runs/07_explorer/uploads/mine.png"


def test_a_model_without_a_classifier_opens_on_attention_rollout():
    tower = wrap_model(small_vit(num_classes=0), image_size=(32, 48), name="tower")
    explorer = explore(tower, SCENE)
    assert (explorer.view.method, explorer.view.target) == ("attention_rollout", None)
    assert explorer.canvas.maps
    explorer.controls.method.value = "gradient_rollout"
    assert "has no classifier" in explorer.status.value
    explorer.close()
