"""The explorer in JupyterLab, in a browser: what a hand does and what is painted."""

import base64
import io
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from explorers import CANVAS, settled, wait_until
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_explorer.ipynb"
PIXELS = f"""() => document.querySelector('{CANVAS}').toDataURL('image/png').split(',')[1]"""
# As `layOut` in canvas.js: where the second panel stands, in shares of the canvas.
BARE_PANEL = f"""() => {{
    const canvas = document.querySelector('{CANVAS}'), outer = canvas.getBoundingClientRect();
    const side = (outer.width - 14) / 2;
    return {{x: side + 14, y: 22, side, width: outer.width, height: outer.height}};
}}"""
VALUES = "__import__('numpy').frombuffer(explorer.canvas.maps, '<f4').tolist()"


CELLS = """() => {
    const notebook = jupyterapp.shell.currentWidget.content
    notebook.activeCellIndex = notebook.widgets.findIndex(
        cell => cell.model.sharedModel.getSource().includes(' = explore('))
    return jupyterapp.commands.execute('notebook:run-all-above')
}"""
RUN_CELL = """() => jupyterapp.commands.execute('notebook:run-cell')"""


@pytest.fixture(scope="module")
def opened(lab_browser):
    """The notebook as far as the explorer; what the browser complains of is kept."""
    page = lab_browser.open(NOTEBOOK)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
    page.evaluate(CELLS)
    return page, complaints


@pytest.fixture
def page(lab, opened):
    """A fresh explorer; whatever the browser complains of fails the test."""
    page, complaints = opened
    complaints.clear()
    show(lab, page)
    yield page
    assert complaints == [] and lab.outside == []
    assert lab.errors(page) == []


def show(lab, page):
    """Run the explorer's cell."""
    page.evaluate(RUN_CELL)
    page.locator(CANVAS).first.wait_for()
    # A click in a cell that is half in sight scrolls it, and what was pointed at moves away.
    page.evaluate("() => document.querySelector('.rollout-explorer').scrollIntoView()")
    settled(lab, page)


def pixels(page):
    return base64.b64decode(page.evaluate(PIXELS))


def bare_panel(lab, page):
    """The second panel's colours at the patches' centres, and what they should be: (196, 3)."""
    box = page.evaluate(BARE_PANEL)
    picture = np.asarray(Image.open(io.BytesIO(pixels(page))).convert("RGB"))
    scale = picture.shape[1] / box["width"]
    centres = (np.arange(14) + 0.5) / 14 * box["side"]
    rows = ((box["y"] + centres) * scale).astype(int)
    columns = ((box["x"] + centres) * scale).astype(int)
    seen = picture[rows][:, columns].reshape(-1, 3)
    values = np.array(lab.ask(page, VALUES)).reshape(2, -1)[1]
    high = lab.ask(page, "explorer.canvas.frame['panels'][1]['high']")
    colours = matplotlib.colormaps["inferno"](values / high)
    return seen.astype(int), (255 * colours[:, :3]).round().astype(int)


def slider(page, name):
    row = page.locator(".widget-slider", has=page.get_by_text(name, exact=True))
    return row.locator(".noUi-handle").first


def status(page):
    return page.locator(".rollout-problem")


def test_what_is_painted_is_what_python_holds(lab, page):
    seen, expected = bare_panel(lab, page)
    assert abs(seen - expected).max() <= 2
    assert len(np.unique(expected, axis=0)) > 10
    lab.screenshot(page, "explorer")


def test_a_patch_that_dominates_is_outlined_and_the_rest_is_seen(lab, page):
    page.get_by_label("method").select_option("attention rollout")
    page.get_by_label("image").select_option("scene_boat_fish")
    wait_until(lab, page, "'boat_fish' in explorer.view.image")
    settled(lab, page)
    assert lab.ask(
        page,
        "explorer.session.dominance('attention_rollout', 0, "
        "explorer.view.settings).patch == (5, 4)",
    )
    box = page.evaluate(BARE_PANEL)
    picture = np.asarray(Image.open(io.BytesIO(pixels(page))).convert("RGB")).astype(int)
    scale, cell = picture.shape[1] / box["width"], box["side"] / 14
    y, x = box["y"] + (5 + 0.5) * cell, 4 * cell
    for left in (0, box["x"]):  # the left edge of the patch, in both panels
        edge = picture[int(y * scale), int((left + x) * scale) - 3 : int((left + x) * scale) + 4]
        assert (edge[:, 1] - edge[:, 0]).max() > 80  # green, whatever lies below
    seen, expected = bare_panel(lab, page)
    lab.screenshot(page, "explorer_dominated")
    assert (abs(seen - expected).max(axis=1) > 2).sum() <= 3  # the patches beside, under the value
    page.wait_for_function("() => document.body.innerText.includes('try start_block=1')")


def test_the_discard_slider_repaints_and_fifty_moves_end_on_the_last(lab, page):
    before = pixels(page)
    page.get_by_label("method").select_option("attention rollout")
    handle = slider(page, "discard")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('.widget-readout').length > 0")
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    ratio = float(page.locator(".widget-slider .widget-readout").first.inner_text())
    assert ratio == pytest.approx(0.51)
    wait_until(lab, page, f"abs(explorer.view.settings.discard_ratio - {ratio}) < 1e-6")
    settled(lab, page)
    assert pixels(page) != before
    seen, expected = bare_panel(lab, page)
    assert abs(seen - expected).max() <= 2
    assert lab.ask(
        page,
        "bool((explorer.session.relevance('attention_rollout', 0, explorer.view.settings).ravel()"
        " == __import__('numpy').frombuffer(explorer.canvas.maps, '<f4')[:196]).all())",
    )


def test_a_class_is_searched_and_two_are_compared(lab, page):
    before = pixels(page)
    search = page.get_by_placeholder("search a class")
    search.fill("do")
    assert page.locator(".rollout-classes .row").all_inner_texts()[0].startswith("dog")
    search.press("Enter")
    wait_until(lab, page, "explorer.session.label(explorer.view.target) == 'dog'")
    settled(lab, page)
    assert pixels(page) != before
    row = page.locator(".rollout-classes .row", has_text="cat")
    row.get_by_role("button", name="compare the target with cat").click()
    wait_until(lab, page, "explorer.view.rival == 0")
    settled(lab, page)
    lab.screenshot(page, "explorer_compared")
    assert lab.ask(page, "[panel['title'] for panel in explorer.canvas.frame['panels']][2]") == (
        "dog minus cat"
    )


def test_the_chosen_class_stays_in_sight_and_is_marked_until_it_is_there(lab, page):
    rows = page.locator(".rollout-classes .row")
    least = lab.ask(page, "explorer.session.label(int(explorer.session.logits.argmin()))")
    assert least not in rows.first.inner_text()
    slowly = "lambda view, show=explorer.show: (__import__('time').sleep(1), show(view))"
    lab.execute(page, f"explorer.show = {slowly}")
    search = page.get_by_placeholder("search a class")
    search.fill(least)
    search.press("Enter")
    page.locator(".rollout-classes .row.asked", has_text=least).wait_for()
    wait_until(lab, page, f"explorer.session.label(explorer.view.target) == {least!r}")
    page.wait_for_function("() => document.querySelector('.row.asked') === null")
    assert search.input_value() == ""
    assert rows.first.inner_text().startswith(least) and rows.count() == 12


def test_a_patch_is_traced_by_hovering_and_pinned_by_a_click(lab, page):
    page.get_by_label("method").select_option("attention rollout")
    wait_until(lab, page, "explorer.view.method == 'attention_rollout'")
    settled(lab, page)
    still, box = pixels(page), page.locator(CANVAS).first.bounding_box()
    panel = page.evaluate(BARE_PANEL)
    at = [
        box["x"] + panel["x"] + 3.5 / 14 * panel["side"],
        box["y"] + 22 + 2.5 / 14 * panel["side"],
    ]
    page.mouse.move(*at)
    page.wait_for_function(
        f"() => document.querySelector('{CANVAS}').dataset.patch === '2,3'", timeout=20_000
    )
    assert pixels(page) != still and lab.ask(page, "explorer.view.settings.query") is None
    page.mouse.click(*at)
    wait_until(lab, page, "explorer.view.settings.query == (2, 3)")
    page.mouse.move(box["x"] - 50, box["y"])
    settled(lab, page)
    lab.screenshot(page, "explorer_traced")
    page.locator(CANVAS).first.press("Escape")
    wait_until(lab, page, "explorer.view.settings.query is None")
    settled(lab, page)
    assert pixels(page) == still


def test_the_grid_leads_to_a_block_and_head(lab, page):
    page.get_by_role("tab", name="blocks and heads").click()
    wait_until(lab, page, "explorer.grid_canvas.frame.get('number', 0) > 0")
    grid = page.locator(CANVAS).nth(1)
    grid.wait_for()
    page.wait_for_function(
        f"() => document.querySelectorAll('{CANVAS}')[1].dataset.number !== undefined"
    )
    lab.screenshot(page, "explorer_grid")
    box = grid.bounding_box()
    page.mouse.click(box["x"] + 62 + 40, box["y"] + 22 + 40)
    wait_until(lab, page, "explorer.view.settings.head == 0 and explorer.tabs.selected_index == 0")
    assert lab.ask(page, "explorer.controls.blocks.value") == [1, 1]
    page.get_by_role("button", name="show all", exact=True).click()
    wait_until(lab, page, "explorer.view.settings.head is None")
    assert lab.ask(page, "explorer.controls.blocks.value") == [1, 6]


def choose_file(page, path):
    with page.expect_file_chooser() as chosen:
        page.get_by_title("upload an image file").click()
    chosen.value.set_files(path)


def test_play_steps_through_the_blocks(lab, page):
    page.locator(".widget-play button").first.click()
    wait_until(lab, page, "explorer.view.settings.end_block == 2")
    lab.screenshot(page, "explorer_play")
    wait_until(lab, page, "explorer.view.settings.end_block == 5")
    wait_until(lab, page, "explorer.view.settings.end_block is None")
    wait_until(lab, page, "not explorer.controls.play.playing")


def test_a_bad_file_is_a_sentence_and_a_good_one_is_shown(lab, page, tmp_path):
    still = pixels(page)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    Image.effect_noise((640, 200), 50).convert("CMYK").save(tmp_path / "wide.tif")
    choose_file(page, tmp_path / "bad.png")
    status(page).wait_for()
    assert "bad.png is not an image" in status(page).inner_text()
    lab.screenshot(page, "explorer_bad_file")
    assert pixels(page) == still and lab.ask(page, "explorer.view.image") == "scene_cat_dog"
    choose_file(page, tmp_path / "wide.tif")
    wait_until(lab, page, "explorer.view.image.endswith('wide.tif')")
    settled(lab, page)
    assert status(page).count() == 0 and pixels(page) != still


def test_a_file_too_large_for_one_message_arrives(lab, page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2200, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 12_000_000  # the server's limit is 10 MB
    choose_file(page, tmp_path / "large.png")
    wait_until(lab, page, "explorer.view.image.endswith('large.png')")
    arrived = "__import__('pathlib').Path(explorer.view.image).stat().st_size"
    assert lab.ask(page, arrived) == (tmp_path / "large.png").stat().st_size
    assert status(page).count() == 0


def test_a_model_that_is_not_there_is_a_sentence(lab, page):
    field = page.get_by_label("model")
    field.fill("vit_nonsense")
    field.press("Enter")
    status(page).wait_for()
    assert "unknown model" in status(page).inner_text()
    wait_until(lab, page, "explorer.controls.model.value == 'demo'")


def test_save_and_copy(lab, page):
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator(".rollout-answer", has_text="Saved").wait_for()
    folder = Path(lab.ask(page, "str(explorer.output_folder.resolve())"))
    newest = max(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(newest.read_text())["image"] == "scene_cat_dog"
    assert newest.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert newest.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="code").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == lab.ask(page, "explorer.code")
    lab.execute(page, f"names = {{'model': model}}\nexec({copied!r}, names)")
    assert lab.ask(
        page,
        "float(abs(names['explanation'].map[0].numpy().ravel()"
        " - __import__('numpy').frombuffer(explorer.canvas.maps, '<f4')[:196]).max())",
    ) == pytest.approx(0, abs=1e-7)


def test_running_the_cell_again_leaves_nothing_behind(lab, page):
    census = "len(__import__('ipywidgets').widgets.widget._instances)"
    lab.execute(page, "import gc, weakref; recorded = weakref.ref(explorer.session.recording)")
    before = lab.ask(page, census)
    for _ in range(3):
        show(lab, page)
    lab.execute(page, "gc.collect()")
    assert lab.ask(page, census) == before
    assert lab.ask(page, "recorded() is None")
    assert lab.ask(page, "sum(len(m._forward_hooks) for m in model.network.modules())") == 0
    assert page.locator(CANVAS).count() == 3  # the map, and grid and methods in their tabs


def test_the_whole_notebook_runs(lab):
    page = lab.open(NOTEBOOK)
    lab.run_all(page)
    settled(lab, page)
    assert lab.outside == []
