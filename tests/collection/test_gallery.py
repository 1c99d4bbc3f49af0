"""The page of a collection: all that it shows is inside it, whatever is in the table."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from browser import FLAGS, HOW_TO_GET_ONE, find_browser
from image_files import write_images
from PIL import Image

from rollout import collect
from rollout.collection.gallery import write_gallery
from rollout.collection.shards import read_table


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.lasttag in ("td", "span"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def collection(model, tmp_path):
    odd = tmp_path / "photos" / '<b onload="x">&.png'
    write_images(tmp_path / "photos", 12, broken=3)
    (tmp_path / "photos" / "0000.png").rename(odd)
    options = {"workers": 0, "progress": False, "discard_ratios": [0, 0.5]}
    collect(model, tmp_path / "photos", tmp_path / "maps", **options)
    return tmp_path / "maps"


def test_each_row_has_its_numbers_and_pictures_and_broken_images_come_last(
    collection, model, tmp_path
):
    page = tmp_path / "gallery.html"
    assert write_gallery(collection, page, model=model) == (21, 21)
    text = page.read_text()
    rows = Page(text).rows[1:]
    table = read_table(collection).sort_values("entropy", kind="stable")
    assert [row[1] for row in rows] == table["path"].tolist()
    assert [row[6] for row in rows[:18]] == [f"{value:.3g}" for value in table["entropy"][:18]]
    assert all(row[-1] for row in rows[18:]) and not any(row[-1] for row in rows[:18])
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(images) == 2 * 18
    for content in images:
        with Image.open(BytesIO(base64.b64decode(content))) as image:
            assert image.size == (168, 112)


def test_the_thumbnail_is_what_the_network_saw(collection, model, tmp_path):
    write_gallery(collection, tmp_path / "gallery.html", sort="image", model=model)
    first = re.search(r"base64,([^\"]+)", (tmp_path / "gallery.html").read_text())[1]
    path = read_table(collection)["path"][0]
    seen = model.pictures(model.images(path))[0].numpy()
    with Image.open(BytesIO(base64.b64decode(first))) as image:
        small = np.asarray(image.resize((12, 8), Image.Resampling.BOX), float) / 255
    large = Image.fromarray((255 * seen).astype(np.uint8)).resize((12, 8), Image.Resampling.BOX)
    np.testing.assert_allclose(small, np.asarray(large, float) / 255, atol=0.12)


def test_nothing_is_fetched_and_nothing_of_a_path_is_run(collection, tmp_path):
    write_gallery(collection, tmp_path / "gallery.html")
    text = (tmp_path / "gallery.html").read_text()
    sources = [
        attributes[name]
        for _, attributes in Page(text).tags
        for name in ("src", "href")
        if name in attributes
    ]
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "default-src 'none'" in text and "<b onload" not in text


def test_the_rows_are_those_with_the_smallest_or_largest_value(collection, tmp_path):
    entropy = read_table(collection)["entropy"].dropna().sort_values()
    for descending, expected in [(False, entropy[:3]), (True, entropy[::-1][:3])]:
        shown = write_gallery(collection, tmp_path / "gallery.html", most=3, descending=descending)
        assert shown == (3, 21)
        rows = Page((tmp_path / "gallery.html").read_text()).rows[1:]
        assert [row[6] for row in rows] == [f"{value:.3g}" for value in expected]


def test_what_is_not_there_is_said(collection, tmp_path):
    with pytest.raises(ValueError, match="no column 'beauty' to sort by; it has image, path"):
        write_gallery(collection, tmp_path / "gallery.html", sort="beauty")
    with pytest.raises(FileNotFoundError, match="no collection in"):
        write_gallery(tmp_path / "photos", tmp_path / "gallery.html")
    assert not (tmp_path / "gallery.html").exists()


@pytest.mark.slow
def test_a_click_on_a_column_sorts_by_it(collection, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    write_gallery(collection, tmp_path / "gallery.html")
    asked, complaints = [], []
    with sync_api.sync_playwright() as playwright:
        path = find_browser(playwright.chromium.executable_path)
        if path is None:
            pytest.skip(HOW_TO_GET_ONE)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "gallery.html").as_uri())

        def column(place):
            cells = page.locator(f"tbody td:nth-child({place})")
            return cells.evaluate_all("cells => cells.map(c => c.dataset.value ?? c.innerText)")

        for _ in range(2):
            page.get_by_role("button", name="largest_share").click()
            shares = [float(text) for text in column(8) if text]
            assert column(8)[len(shares) :] == [""] * 3
            heading = page.get_by_role("columnheader", name="largest_share")
            down = heading.get_attribute("aria-sort") == "descending"
            assert shares == sorted(shares, reverse=down)
        assert down
        page.get_by_role("button", name="path", exact=True).click()
        numbered = [path for path in column(2) if "<" not in path]
        assert numbered == sorted(numbered)
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
