"""What is taken away from the explorer: code, settings, pictures, pages."""

import base64
import io
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from explorers import SCENE, WIDE, problem

from rollout import explore
from rollout.demo.samples import sample_path
from rollout.explorer.code import as_code
from rollout.explorer.frame import main_frame
from rollout.explorer.saving import KINDS
from rollout.explorer.sources import Sources, open_session
from rollout.explorer.view import View, as_keywords
from rollout.settings import Settings

VIEWS = [
    View(SCENE, "demo", target=1),
    View(SCENE, "demo", target=0, rival=1, settings=Settings("max", 0.35)),
    View(SCENE, "demo", target=frozenset({0, 5}), rival=1),
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
    sources = Sources(keywords.pop("model"), keywords.pop("image"), Path())
    assert sources.start(keywords)[1] == view


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
    assert names == sorted(f"{stem}{two}{kind}" for two in ("", "_2") for kind in KINDS)
    assert (tmp_path / "saved" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    shown = np.frombuffer(explorer.canvas.maps, "<f4")[:196].reshape(14, 14)
    np.testing.assert_array_equal(np.load(tmp_path / "saved" / f"{stem}.npy"), shown)
    table = pd.read_csv(tmp_path / "saved" / f"{stem}.csv")
    pivoted = table.pivot(index="row", columns="column", values="value")
    np.testing.assert_allclose(pivoted, shown, rtol=1e-6)
    names: dict = {"model": explorer.session.model}
    exec((tmp_path / "saved" / f"{stem}.py").read_text(), names)
    np.testing.assert_allclose(names["explanation"].map[0], shown, rtol=1e-5)
    again = explore(**json.loads((tmp_path / "saved" / f"{stem}.json").read_text()))
    assert again.view.settings == explorer.view.settings and again.view.image == SCENE
    again.close()


def test_a_page_without_a_kernel_gets_the_picture_of_the_open_tab(explorer, monkeypatch):
    outputs: dict[str, list[dict]] = {"": []}

    def keep(data, *, raw, display_id="", update=False):
        assert raw and (display_id in outputs) == (update or not display_id)
        outputs.setdefault(display_id, []).append(data)

    for module in ("explorer", "still"):
        monkeypatch.setattr(f"rollout.explorer.{module}.display", keep)
    explorer._ipython_display_()
    explorer.tabs.selected_index = 1
    explorer.still.update()
    (widget,), (first, second) = outputs.values()
    assert "application/vnd.jupyter.widget-view+json" in widget and "image/png" not in widget
    shapes = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(one["image/png"]))).shape
        for one in (first, second)
    ]
    assert shapes[0] != shapes[1] and first["text/plain"] == repr(explorer)
