"""The page of the comparison: every map has its row, what differs is bold, README gets its own."""

import importlib
from pathlib import Path

import pandas as pd
import pytest

from rollout.comparison.published import TABLES, published

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MAPS = [("gradient_rollout", ""), ("control: mask", ""), ("raw_attention", "")]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("compare")


@pytest.fixture
def tables():
    means, different = [], []
    for place, (method, setting) in enumerate(MAPS):
        for measure in ("peak", "deletion, tokens"):
            named = {"method": method, "setting": setting, "measure": measure}
            number = 0.9 - place / 10
            means.append({**named, "mean": number, "low": number - 0.1, "high": number + 0.05})
            if place:
                p = 0.001 if (measure, place) == ("peak", 2) else 0.5
                different.append({**named, "p_holm": p})
    cost = pd.DataFrame([{"method": m, "setting": s, "forward_passes": 3.14} for m, s in MAPS])
    return pd.DataFrame(means), pd.DataFrame(different), cost


def test_a_section_has_a_table_for_each_family_and_controls_last(page, tables):
    text = page.section("demo", tables, 500)
    assert "Scenes: where 500, what if 150, tokens 60," in text
    assert text.count("###") == 3  # where, tokens, and the costs
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == "| map | peak ↑ |"
    assert lines[1:4] == [
        "| gradient rollout | 0.90 [0.80, 0.95] |",
        "| raw attention | **0.70 [0.60, 0.75]** |",
        "| control: mask | 0.80 [0.70, 0.85] |",
    ]
    assert lines[4] == "| map | deletion, tokens ↓ |"
    assert lines[-1] == "| raw attention | 3.1 |" and "**" not in "".join(lines[4:])


def test_readme_gets_both_models_between_its_marks(page, tables, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "README", tmp_path / "README.md")
    table = page.readme_table({"demo": tables, "dinov2_scenes": tables})
    page.README.write_text("before\nafter")
    assert not page.write_readme(table) and page.README.read_text() == "before\nafter"
    begin, end = page.MARKS
    page.README.write_text(f"before\n{begin}\nold\n{end}\nafter")
    assert page.write_readme(table) and page.write_readme(table)
    assert page.README.read_text() == f"before\n{begin}\n\n{table}\n\n{end}\nafter"
    rows = [line.split("|")[1:-1] for line in table.splitlines()]
    assert {len(row) for row in rows} == {1 + 2 * len(page.SHOWN)}
    assert rows[0][1].strip() == "demo: peak ↑" and rows[3][1] == rows[3][1 + len(page.SHOWN)]


def test_readme_and_the_page_say_what_was_published(page):
    kept = {name: published(name) for name in TABLES}
    found = {
        model: tuple(table[table["model"] == model] for table in kept.values())
        for model in page.MODELS
    }
    assert page.readme_table(found) in page.README.read_text()
    for model, tables in found.items():
        assert page.section(model, tables, 500) in page.RESULTS.read_text()
