"""What is taken away from the explorer: code, settings, pictures, pages."""

import base64
import io
import json

import matplotlib.image
import nbformat
import numpy as np
import pytest
from explorers import SCENE, WIDE, problem
from nbconvert import HTMLExporter

from rollout import explore
from rollout.demo.samples import sample_path
from rollout.explorer.frame import main_frame
from rollout.explorer.sources import open_session
from rollout.explorer.view import View, as_code, as_keywords, from_keywords
from rollout.settings import Settings

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
