"""The slider through pictures in JupyterLab: a key press changes what is painted."""

import pytest
from helpers import write_notebook

CODE = """
from rollout.plots.film import PictureSlider
from rollout.plots.figure import new_figure
figures = {name: new_figure(1, 1, width=2, height=1)[0] for name in ("0", "0.5", "0.9")}
for name, figure in figures.items():
    figure.suptitle(name)
slider = PictureSlider(figures, name="discard ratio", still=figures["0"])
slider
"""
SOURCE = "() => document.querySelector('.widget-image')?.src"


@pytest.mark.slow
def test_a_key_press_shows_the_next_picture(lab, tmp_path):
    page = lab.open(write_notebook(tmp_path / "slider.ipynb", CODE))
    lab.run_all(page)
    image = page.locator(".widget-image")
    image.wait_for()
    assert page.locator(".widget-label", has_text="discard ratio").is_visible()
    first = page.evaluate(SOURCE)
    page.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(f"first => ({SOURCE})() !== first", arg=first)
    assert lab.ask(page, "slider.slider.value") == "0.5"
    assert image.bounding_box()["width"] == pytest.approx(200, abs=30)
    lab.screenshot(page, "picture_slider")
    assert lab.outside == []
