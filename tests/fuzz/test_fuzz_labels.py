"""Names of random letters stay data: in code, titles, file names, tables and pages."""

import ast
import html.parser
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import small_vit
from hostile import NASTY_TEXTS

from rollout import audit, describe, explain, sweep, wrap_model
from rollout.explorer.code import as_code
from rollout.explorer.messages import busy, problem, shares_table
from rollout.explorer.view import View
from rollout.names import LONGEST_FILE_NAME, LONGEST_TITLE, file_name, one_line, quoted

SPECIAL = "'\"\\$<>&;#{}%*?[]()/:|~\n\r\t\x00\x0b\x0c\x1b\x85\u2028\u2029\u202e\u200b\ud800\udfff"
PARTS = (
    "cat",
    "..",
    "import os",
    "\\frac",
    "<script>",
    "</b>",
    "&amp;",
    "]]>",
    "-->",
    "猫",
    "🦊",
    ".",
)
PLAIN_TAGS = {"table", "thead", "tbody", "tr", "td", "th", "div", "span", "b", "style", "i"}


def random_name(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(NASTY_TEXTS)
    letters = [*SPECIAL, *PARTS, *"ab ", chr(rng.randrange(0x20, 0x2FFFF))]
    return "".join(rng.choice(letters) for _ in range(rng.choice([1, 3, 10, 60])))


def check_name(name: str) -> None:
    title = one_line(name)
    assert len(title) <= LONGEST_TITLE and title.splitlines() in ([title], [])
    assert title == "" or title.isprintable()
    file = file_name(name)
    assert Path("/here", file).resolve().parent == Path("/here") and file.strip(". ") == file
    assert 0 < len(file.encode()) <= LONGEST_FILE_NAME
    assert ast.literal_eval(quoted(name)) == name and len(quoted(name).splitlines()) == 1


def check_code(label: str, rival: str, image: str, model: str) -> None:
    view = View(image, model, target=1, rival=2)
    plain = as_code(View("a.png", "vit", target=1, rival=2), "cat", "dog")
    code = as_code(view, label, rival)
    statements = [ast.dump(one, annotate_fields=False)[:30] for one in ast.parse(code).body]
    assert len(statements) == len(ast.parse(plain).body)
    assert len(code.splitlines()) == len(plain.splitlines())


def test_names(fuzz):
    area = fuzz("labels", 1500)
    for _ in range(area.cases):
        name = random_name(area.rng)
        area.attempt(lambda: check_name(name), repr(name), refusable=False)  # noqa: B023


def test_code(fuzz):
    area = fuzz("labels", 150)
    for _ in range(area.cases):
        four = [random_name(area.rng) for _ in range(4)]
        area.attempt(lambda: check_code(*four), repr(four), refusable=False)  # noqa: B023


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.found.add(tag)


def tags(page: str) -> set[str]:
    parser = Tags()
    parser.feed(page)
    return parser.found


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_models_with_such_labels(fuzz, tmp_path):
    area = fuzz("labels", 12)
    network, image = small_vit(), torch.randn(1, 3, 32, 48)
    for number in range(area.cases):
        labels = [random_name(area.rng).encode(errors="replace").decode() for _ in range(7)]
        name = random_name(area.rng)

        def use(labels=labels, name=name, number=number) -> None:
            model = wrap_model(network, labels=labels, name=name)
            found = explain(model, image, target=1)
            assert found.labels == (labels[1],) and len(found.title().splitlines()) == 1
            picture = found.save(tmp_path / f"a.{'pdf' if number % 4 == 0 else 'png'}")
            assert picture.stat().st_size > 1000
            replace(found, target=(frozenset({0, 1}),), labels=(model.label({0, 1}),)).title()
            pages = [describe(model)._repr_html_(), audit(model, image)._repr_html_()]
            pages.append(shares_table({label: (0.5, 0.2) for label in labels}))
            pages += [busy(name), problem(ValueError(name))]
            allowed = {
                "table",
                "thead",
                "tbody",
                "tr",
                "td",
                "th",
                "div",
                "span",
                "b",
                "style",
                "i",
            }
            assert tags("".join(map(str, pages))) <= allowed
            table = sweep(model, image, discard_ratios=[0.5], head_fusions=["mean"], targets=[1])
            assert set(table["label"]) == {labels[1]}

        area.attempt(use, repr((labels[1], name)), refusable=False)
