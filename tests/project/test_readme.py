"""README shows files that exist with the settings behind them, quotes the demo model's card, and
names real commands."""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from rerun_notebooks import code_cells

from rollout.cli.main import _parser as command_line
from rollout.comparison.published import published
from rollout.explanations.figure_file import read_figure
from rollout.settings import METHODS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTIONS = re.split(r"^#+ .*\n", README, flags=re.M)
CODE = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pictures(text):
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)


def commands(program):
    """The arguments of each line of README that calls a program."""
    lines = "".join(code for language, code in CODE if not language).splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words and words[0] == program]


def test_every_picture_exists():
    assert len(pictures(README)) > 25
    assert [picture for picture in pictures(README) if not (ROOT / picture).is_file()] == []


def test_every_figure_is_shown():
    committed = [path for path in (ROOT / "figures").iterdir() if path.suffix != ".json"]
    assert {f"figures/{path.name}" for path in committed} <= set(pictures(README))


@pytest.mark.parametrize("section", [s for s in SECTIONS if "(figures/" in s])
def test_the_settings_stand_under_the_pictures(section):
    said = " ".join(re.findall(r"^Settings: .*", section, flags=re.M))
    figures = [ROOT / name for name in pictures(section) if name.endswith(".png")]
    panels = [p for path in figures if path.parent.name == "figures" for p in read_figure(path)]
    assert panels
    for panel in panels:
        knobs = panel["explain"]
        words = [METHODS[knobs["method"]].title, knobs["head_fusion"], f"{panel['model']} model"]
        words += ["legacy=True"] * knobs.get("legacy", False)
        assert [word for word in words if word not in said] == []
        ratios = re.findall(r"(?<=discard )[\d., and]+", said)
        assert f"{knobs['discard_ratio']:g}" in re.findall(r"\d(?:\.\d+)?", " ".join(ratios))


@pytest.mark.parametrize("card", ["demo", "dinov2_scenes"])
def test_the_answers_it_tells_of_are_those_of_the_cards(card):
    quality = json.loads((ROOT / f"data/models/{card}.json").read_text())["quality"]
    answers = quality["gradient_rollout"]
    assert f"{100 * answers['top_logit_present']:.1f} %" in README
    assert f"{answers['mean_average_precision']:.3f}" in README
    means = published("summary").set_index(["model", "method", "setting", "measure"])["mean"]
    for measure, key in (
        ("peak", "peak_on_target"),
        ("average precision", "map_average_precision"),
    ):
        assert abs(means[card, "gradient_rollout", "", measure] - answers[key]) < 1e-3


def test_what_it_says_of_the_published_code_is_what_notebook_02_found():
    last = code_cells(nbformat.read(ROOT / "notebooks/02_gradient_rollout.ipynb", 4))[-1]
    said = last.outputs[-1].data["text/markdown"]
    published, corrected = re.search(
        r"published .* in (\d+)% of them, the corrected one in (\d+)%", said
    ).groups()
    assert corrected == "100"
    assert f"peak on the target in {published} % of the cases, the corrected one in all" in README


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = re.findall(r"`make (\w+)", README) + [words[0] for words in commands("make")]
    assert len(named) > 5 and set(named) <= targets


def test_every_notebook_stands_there_with_its_question():
    for path in NOTEBOOKS:
        question = nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")
        assert f"| [`{path.stem}`](notebooks/{path.name}) | {question} |" in README


def test_every_link_leads_somewhere():
    links = re.findall(r"(?<!!)\[[^]]*\]\(([^)]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_are_understood():
    parsed = [command_line().parse_args(words) for words in commands(".venv/bin/rollout")]
    assert len(parsed) == 7


def test_the_files_that_commands_name_exist():
    named = [word for words in commands(".venv/bin/rollout") for word in words if "." in word]
    files = [word for word in named if Path(word).suffix in (".png", ".jpg", ".ipynb")]
    assert len(files) == 5 and [word for word in files if not (ROOT / word).is_file()] == []


def test_papermill_is_given_parameters_that_exist():
    calls = commands(".venv/bin/papermill")
    calls += [words for words in commands(".venv/bin/rollout") if words[0] == "notebooks"]
    assert len(calls) == 3
    for words in calls:
        (path,) = (ROOT / word for word in words if word.startswith("notebooks/"))
        (cell,) = (c for c in code_cells(nbformat.read(path, 4)) if c.metadata.get("tags"))
        given = {name for flag, name in zip(words, words[1:], strict=False) if flag == "-p"}
        assert given <= set(re.findall(r"^(\w+) =", cell.source, flags=re.M))


def test_the_first_code_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    first = next(code for language, code in CODE if language == "python")
    variables = {}
    exec(compile(first, "README.md", "exec"), variables)
    assert variables["explanation"].map.shape == (1, 14, 14)


def test_it_is_not_longer_than_a_reader_has_patience_for():
    tables = r"<!-- methods: begin -->.*<!-- methods: end -->"
    assert len(re.sub(tables, "", README, flags=re.S).split()) <= 3000
