"""Labels come out of downloaded configurations: whatever they hold, they stay data.

In code, in titles, in file names and in HTML: all four are tried with the same labels.
"""

import ast
import html.parser
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_vit
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rollout import explain, wrap_model
from rollout.explorer.code import as_code
from rollout.explorer.messages import busy, described, problem, shares_table
from rollout.explorer.panel import Frame, Panel
from rollout.explorer.saving import save_view
from rollout.explorer.sources import open_session
from rollout.explorer.view import View
from rollout.files import whole_file
from rollout.names import file_name, one_line, quoted

NASTY = [
    "cat\nraise SystemExit", "cat\rimport os", "cat\u2028x = 1", "cat\x85y", "cat\x0cz", "'",
    'a"""b', "$x^$", "$\\frac{$", "a$b", "\\", "<script>alert(1)</script>", "<b>", "&lt;", "..",
    "../../x", "/etc/passwd", "C:\\x", "", " ", "\0", "\ud800", "\u202egnp.exe", "#", "{0}", "%s",
    "a" * 5000, "\U0001f431", "猫", "con", "a/b, c", "cat\x1b[31m", "-rf", ".hidden", "_", "~",
]  # fmt: skip
LABELS = st.one_of(st.sampled_from(NASTY), st.text(max_size=40))
TRIES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wrap_model(small_vit(), labels=[*NASTY[:6], "dog"])


def calls(code: str) -> list[str]:
    """What a program does, its numbers and texts left out."""
    return [type(statement).__name__ for statement in ast.parse(code).body]


@given(label=LABELS, rival=LABELS, name=LABELS, image=LABELS)
@TRIES
def test_in_code(label: str, rival: str, name: str, image: str) -> None:
    for given_ones in (frozenset(), frozenset({"model", "image"})):
        plain = View("a.png", "vit", target=1, rival=2, given=given_ones)
        nasty = replace(plain, image=image, model=name)
        code = as_code(nasty, label, rival)
        assert calls(code) == calls(as_code(plain, "cat", "dog"))
        assert len(code.splitlines()) == len(as_code(plain, "cat", "dog").splitlines())
        texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
        assert given_ones or {image, name} <= texts


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("label", NASTY)
def test_in_titles(label: str, model, tmp_path: Path) -> None:
    explanation = replace(explain(model, torch.randn(1, 3, 32, 48), target=1), labels=(label,))
    figure = explanation.plot()
    title = figure.axes[1].get_title()
    assert one_line(label) in title and "\n" not in title and len(title) < 130
    name = "a.pdf" if "$" in label else "a.png"
    assert explanation.save(tmp_path / name).stat().st_size > 1000


@given(label=LABELS)
@TRIES
def test_in_file_names(label: str, tmp_path: Path) -> None:
    name = file_name(label)
    inside = tmp_path / f"{name}.png"
    assert inside.parent == tmp_path and inside.resolve().parent == tmp_path.resolve()
    assert name not in ("", ".", "..") and not name.startswith(".") and len(name.encode()) <= 200
    with whole_file(inside) as partial:
        partial.write_bytes(b"x")
    assert inside.read_bytes() == b"x"


@given(label=LABELS, image=LABELS)
@example(label="\ud800", image="\ud800")  # half a letter, which no file can hold
@settings(TRIES, max_examples=15)
def test_what_the_explorer_saves_stays_in_its_folder(
    label: str, image: str, tmp_path: Path
) -> None:
    frame = Frame((Panel(label, np.ones((2, 3)), 1.0, over=True),), 1, 0.8)
    view, words = View(image, "vit"), one_line(label)
    files = save_view(Figure((1, 1)), frame, view, words, "pass", tmp_path / "out")
    assert {file.parent for file in files} == {tmp_path / "out"}
    assert all(file.is_file() for file in files)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


class Tags(html.parser.HTMLParser):
    """The tags of a page, and the words between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = io.StringIO()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.write(data)


@given(label=LABELS)
@TRIES
def test_in_html(label: str) -> None:
    for make in (
        lambda text: shares_table({text: (0.5, 0.25)}),
        lambda text: busy(f"Running {text}"),
        lambda text: problem(ValueError(f"no class {text}")),
    ):
        found = Tags(make(label))
        assert found.tags == Tags(make("cat")).tags
        assert one_line(label)[:20].split()[:1] == [] or one_line(label).split()[0][:5] in (
            found.words.getvalue()
        )


def test_the_explorers_own_sentences(model) -> None:
    session = open_session(model, np.zeros((32, 48, 3), np.uint8))
    view = View("<b>$x$\n", "<i>", target=0)
    assert "\n" not in session.short_label(0) and session.label(0) == NASTY[0]
    assert described(session, view).startswith("<i> on <b>")  # escaped where it is shown


@given(text=st.one_of(LABELS, st.text()))
def test_a_quoted_text_is_the_text(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text and quoted(text).isprintable()
