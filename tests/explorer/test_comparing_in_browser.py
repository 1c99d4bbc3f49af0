"""Two views beside each other in JupyterLab: painted over their own images, read by the pointer."""

import base64
import io

import matplotlib
import numpy as np
import pytest
from explorers import CANVAS, settled, wait_until
from helpers import write_notebook
from PIL import Image

CELL = """\
from rollout import explore
explorer = explore("demo", "scene_cat_dog", method="attention_rollout")
explorer"""
PIXELS = (
    "canvas => [canvas.toDataURL('image/png').split(',')[1], canvas.getBoundingClientRect().width]"
)
VALUE = "() => document.querySelector('.rollout-canvas .value').textContent"
IN_SIGHT = """() => {
    const parts = [...document.querySelectorAll('.rollout-explorer button, .rollout-beside')]
        .filter(part => part.offsetParent).map(part => part.getBoundingClientRect());
    const top = Math.min(...parts.map(part => part.top));
    const right = Math.max(...parts.map(part => part.right));
    return [Math.max(...parts.map(part => part.bottom)) - top, right];
}"""


@pytest.fixture
def page(lab, tmp_path):
    page = lab.open(write_notebook(tmp_path / "comparing.ipynb", CELL), width=1280, height=720)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    lab.run_all(page)
    page.locator(CANVAS).first.wait_for()
    settled(lab, page)
    yield page
    assert complaints == [] and lab.errors(page) == []


def painted(page, number=0):
    png, width = page.locator(CANVAS).nth(number).evaluate(PIXELS)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
    return picture.astype(int), picture.shape[1] / width, width


def test_a_kept_view_stays_while_the_rest_moves(lab, page):
    alone, _, width = painted(page)
    page.get_by_role("button", name="Keep", exact=True).click()
    wait_until(lab, page, "explorer.view.compare_with is not None")
    page.get_by_label("image").select_option("photo_cat")
    wait_until(lab, page, "explorer.view.image == 'photo_cat'")
    settled(lab, page)
    page.wait_for_function("() => document.body.innerText.includes('Rank correlation')")
    seen, scale, width = painted(page)
    side = lab.ask(page, "explorer.canvas.frame['across']") and (width - 28) / 3
    # The difference, a patch a patch: its colours are those of the values that Python holds.
    centres = (np.arange(14) + 0.5) / 14 * side
    rows, columns = 22 + centres, 2 * (side + 14) + centres
    found = seen[(rows * scale).astype(int)][:, (columns * scale).astype(int)].reshape(-1, 3)
    values = "__import__('numpy').frombuffer(explorer.canvas.maps, '<f4')[-196:].tolist()"
    high = lab.ask(page, "explorer.canvas.frame['panels'][2]['high']")
    shares = (np.array(lab.ask(page, values)) / high + 1) / 2
    colours = 255 * matplotlib.colormaps["RdBu_r"](shares)[:, :3]
    assert np.quantile(abs(found - colours), 0.99) <= 3
    # The kept map lies over the cat and the dog, the other over a photo: their greys differ.
    now, kept = (seen[30 : 20 + int(side), int(x) : int(x + side)] for x in (0, side + 14))
    assert abs(now[: len(kept), : kept.shape[1]] - kept[:, : now.shape[1]]).mean() > 10
    box = page.locator(CANVAS).first.bounding_box()
    page.mouse.move(box["x"] + 2.5 / 14 * side, box["y"] + 22 + 3.5 / 14 * side)
    page.wait_for_function(f"() => ({VALUE})().includes('kept')")
    words = page.evaluate(VALUE)
    assert words.startswith("row 3, column 2: ") and words.count(",") == 3, words
    lab.screenshot(page, "explorer_kept")
    page.get_by_role("button", name="Let go", exact=True).click()
    wait_until(lab, page, "explorer.session.beside is None")


def test_the_browser_paints_a_logarithm_as_python_has_it(lab, page):
    page.get_by_role("combobox", name="scale").select_option("logarithm")
    wait_until(lab, page, "explorer.view.scale == 'log'")
    settled(lab, page)
    seen, scale, width = painted(page)
    side = (width - 14) / 2
    centres = (np.arange(14) + 0.5) / 14 * side
    rows, columns = (
        ((22 + centres) * scale).astype(int),
        ((side + 14 + centres) * scale).astype(int),
    )
    values = np.array(
        lab.ask(page, "__import__('numpy').frombuffer(explorer.canvas.maps, '<f4')[:196].tolist()")
    )
    low, high = (
        lab.ask(page, f"explorer.canvas.frame['panels'][0]['{e}']") for e in ("low", "high")
    )
    shares = np.log(np.clip(values, low, high) / low) / np.log(high / low)
    expected = 255 * matplotlib.colormaps["inferno"](shares)[:, :3]
    assert abs(seen[rows][:, columns].reshape(-1, 3) - expected).max() <= 4


def test_grid_and_methods_lead_back_to_the_map_by_keyboard(lab, page):
    page.get_by_role("tab", name="blocks and heads").click()
    page.get_by_label("order").select_option("largest patch first")
    wait_until(lab, page, "explorer.grid_canvas.frame.get('rowLabels') == ()")
    grid = page.locator(CANVAS).nth(1)
    page.wait_for_function(f"() => document.querySelectorAll('{CANVAS}')[1].dataset.number > 1")
    grid.focus()
    for key in ("ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    beside = page.locator(".rollout-canvas .beside:visible")
    title = lab.ask(page, "explorer.grid_canvas.frame['panels'][1]['title']")
    assert beside.inner_text().startswith(title)
    page.keyboard.press("Enter")
    wait_until(lab, page, "explorer.tabs.selected_index == 0")
    block, head = lab.ask(page, "[explorer.view.settings.start_block, explorer.view.settings.head]")
    assert title.startswith(f"block {block + 1}, head {head + 1}")
    page.get_by_role("tab", name="methods").click()
    methods = page.locator(CANVAS).nth(2)
    page.wait_for_function(f"() => document.querySelectorAll('{CANVAS}')[2].dataset.number")
    methods.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    wait_until(lab, page, "explorer.view.method == 'raw_attention'")


def test_all_is_in_sight_on_a_projector(lab, page):
    page.evaluate("() => jupyterapp.shell.collapseLeft()")
    page.evaluate("() => document.querySelector('.rollout-explorer').scrollIntoView()")
    for button in (None, "Larger text"):
        if button:
            page.get_by_role("button", name=button).click()
            wait_until(lab, page, "explorer.view.text == 1.3")
            page.wait_for_timeout(500)
        height, right = page.evaluate(IN_SIGHT)
        lab.screenshot(page, f"explorer_projector_{button}")
        assert height < 600 and right <= 1280, button
