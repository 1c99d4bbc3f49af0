"""The explorer in the page around it: keys, saved notebooks, the kernel's end, screen readers."""

import base64
import io
import json

import numpy as np
import pytest
from explorers import CANVAS, settled, wait_until
from helpers import write_notebook
from matplotlib.figure import Figure
from nbconvert import HTMLExporter
from PIL import Image

from rollout.plots.maps import plot_overlay

CELL = """\
from rollout import explore
explorer = explore("demo", "scene_cat_dog", method="attention_rollout", discard_ratio=0.9)
explorer"""
NOTEBOOK = "jupyterapp.shell.currentWidget"
CELLS = f"""() => [...{NOTEBOOK}.content.widgets].map(cell => cell.model.sharedModel.source)"""
OUTPUTS = """() => [...document.querySelectorAll('.jp-OutputArea-child')]
    .filter(output => output.getBoundingClientRect().height > 1)
    .map(output => [output.innerText,
        output.querySelector('.jp-RenderedImage img')?.naturalWidth || 0])"""
FIRST_PANEL = f"""() => {{
    const canvas = document.querySelector('{CANVAS}');
    return [canvas.toDataURL('image/png').split(',')[1], canvas.getBoundingClientRect().width];
}}"""
THEME = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
AXE = """async () => (await axe.run('.rollout-explorer')).violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => [one.id, ...one.nodes.map(node => node.html)])"""


@pytest.fixture
def page(lab, tmp_path):
    page = lab.open(write_notebook(tmp_path / "edge.ipynb", CELL))
    lab.run_all(page)
    page.locator(CANVAS).first.wait_for()
    settled(lab, page)
    return page


def test_keys_stop_at_the_explorers_edge(lab, page):
    before = page.evaluate(CELLS)
    page.locator(".jp-Cell").first.press("Escape")  # into command mode, where letters are commands
    for place in (page.locator(CANVAS).first, page.get_by_role("button", name="Save", exact=True)):
        place.focus()
        for key in ("x", "d", "d", "a", "b", "0", "Shift+M", "Shift+Enter"):
            page.keyboard.press(key)
    assert page.evaluate(CELLS) == before and page.locator(CANVAS).count() == 3
    page.locator(CANVAS).first.focus()
    for key in 5 * ["ArrowDown", "ArrowRight"]:  # faster than the kernel answers
        page.keyboard.press(key)
    wait_until(lab, page, "explorer.view.settings.query == (5, 5)")
    page.keyboard.press("Control+z")  # one step back, or on a quick machine all ten together
    wait_until(lab, page, "explorer.view.settings.query != (5, 5)")


def test_a_saved_notebook_keeps_the_picture_that_was_seen(lab, page, tmp_path):
    assert [width for _, width in page.evaluate(OUTPUTS)] == [0]  # the widget alone
    lab.execute(page, "explorer.controls.discard_ratio.value = 0.5; explorer.still.update()")
    page.locator(CANVAS).first.focus()
    page.keyboard.press("Control+s")
    path = lab.server.root / page.evaluate(f"() => {NOTEBOOK}.context.path")
    saved = tmp_path / "saved.ipynb"
    for _ in range(100):
        page.wait_for_timeout(100)
        if "rollout-place" in path.read_text():
            break
    saved.write_text(path.read_text())
    outputs = json.loads(saved.read_text())["cells"][0]["outputs"]
    (png,) = [output["data"]["image/png"] for output in outputs if "image/png" in output["data"]]
    lab.execute(page, "import base64; png = base64.b64encode(explorer._png('')).decode()")
    assert png.strip() == lab.ask(page, "png") and saved.stat().st_size < 1_000_000

    again = lab.open(saved, as_it_is=True)
    again.wait_for_function("() => !document.body.innerText.includes('Loading widget')")
    again.wait_for_timeout(1000)
    ((words, width),) = again.evaluate(OUTPUTS)
    assert words.strip() == "" and width > 500
    lab.screenshot(again, "explorer_without_a_kernel")
    exported, _ = HTMLExporter().from_filename(str(saved))
    assert png.strip()[:1000] in exported

    page.evaluate(f"() => void {NOTEBOOK}.sessionContext.session.kernel.restart()")
    page.get_by_role("alert").get_by_text("The kernel is gone").wait_for()
    lab.screenshot(page, "explorer_after_a_restart")


def test_what_is_painted_is_what_is_saved(lab, page):
    png, width = page.evaluate(FIRST_PANEL)
    side = round((width - 14) / 2)
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)
    figure = Figure((side / 100, side / 100), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    values = lab.ask(
        page, "__import__('numpy').frombuffer(explorer.canvas.maps, '<f4')[:196].tolist()"
    )
    picture = np.array(lab.ask(page, "explorer.session.picture().tolist()"))
    high = lab.ask(page, "explorer.canvas.frame['panels'][0]['high']")
    plot_overlay(picture, np.reshape(values, (14, 14)), ax=ax, vmax=high, scale="max")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    drawn = np.asarray(Image.open(file).convert("RGB")).astype(int)
    difference = abs(seen[22 : 22 + side, :side] - drawn[:side, :side])
    assert np.quantile(difference, 0.99) <= 6  # of 255; colours interpolated would be 30 apart


def test_every_control_has_a_name_that_is_said(lab, page):
    axe = pytest.importorskip("axe_playwright_python")
    script = next(path for path in axe.__path__) + "/axe.min.js"
    page.add_script_tag(path=script)
    page.get_by_role("button", name="Keep", exact=True).click()
    for theme in ("Light", "Dark"):
        page.evaluate(THEME, f"JupyterLab {theme}")
        for tab in ("blocks and heads", "methods", "code", "map"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(500)
            assert page.evaluate(AXE) == [], (theme, tab)
    search = page.get_by_placeholder("search a class")
    search.focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    second = lab.ask(page, "int((-explorer.session.logits).argsort()[1])")
    wait_until(lab, page, f"explorer.view.target == {second}")
    assert page.get_by_role("button", name="mean").get_attribute("aria-pressed") == "true"
