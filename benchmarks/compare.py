"""Which map to believe: every method on both models, with controls, intervals and paired tests.

    python benchmarks/compare.py [--scenes 500] [--save]

Parts go to runs/compare/; the same command goes on from them. Under an hour on two cores.
"""

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from table import machine, markdown

from rollout import compare, load_model
from rollout.comparison.candidates import find_candidates
from rollout.comparison.cost import costs
from rollout.comparison.plan import DEAR, MOST
from rollout.comparison.published import TABLES, publish
from rollout.comparison.sources import CROWD, Scenes
from rollout.comparison.tables import MEASURES, differences, name_of, summary
from rollout.demo.quality import UNSEEN_SEED
from rollout.files import whole_file

ROOT = Path(__file__).parents[1]
# How many scenes each family of measures sees at most; DINOv2 takes ten times as long for each.
MODELS: dict[str, dict[str, int | None]] = {
    "demo": MOST,
    "dinov2_scenes": {**MOST, "what_if": 80, "tokens": 20, "pixels": 10, "randomisation": 10},
}
RESULTS = Path(__file__).with_name("RESULTS_METHODS.md")
PARTS = ROOT / "runs" / "compare"
README = ROOT / "README.md"
MARKS = ("<!-- methods: begin -->", "<!-- methods: end -->")
SHOWN = ("peak", "average precision", "drop correlation")  # in README
TITLES = {
    "where": "Does the map lie on its target?",
    "what_if": "Does it say what an object is worth?",
    "tokens": "Deletion and insertion by dropping patches",
    "pixels": "Deletion and insertion by black pixels",
    "randomisation": "Does it change when the weights are randomised?",
}
HOW = """\
{scenes} scenes of two objects that neither model was trained on (seed {seed}), each object the
target once; for `what if` scenes of {low} to {high} objects, of which two are the target once,
drawn again without each object. How many scenes each family of measures sees stands below the
model's name; gradient flow sees {flow} of them at most. Means with 95 % intervals by bootstrap over
the scenes; the cases of a scene count together. One set of weights of each model was used. Bold:
better or worse than gradient rollout on the same scenes, p < 0.05 by Wilcoxon's signed ranks after
Holm's correction for all maps of the column. Arrows say which way is better."""
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def tables_of(name: str, scenes: int) -> Tables:
    """Means, differences to gradient rollout, and costs of one model."""
    out = PARTS / name
    table = compare(name, scenes, most=MODELS[name], out=out, workers=None)
    return summary(table), differences(table), cost_table(name, out / "_costs.csv")


def cost_table(name: str, path: Path) -> pd.DataFrame:
    """Timed once; measured again when the file is removed."""
    if not path.is_file():
        torch.set_num_threads(1)
        model, dataset = load_model(name, device="cpu"), Scenes(UNSEEN_SEED, 2).dataset
        images = [Image.fromarray(dataset.scene(number).image) for number in range(2)]
        found = costs(model, model.images(images), find_candidates(model), rounds=3)
        with whole_file(path) as partial:
            found.to_csv(partial, index=False)
    return pd.read_csv(path, keep_default_na=False)


def grid(
    summarised: pd.DataFrame, different: pd.DataFrame, measures: Sequence[str]
) -> list[list[str]]:
    """A row of cells for each map: its mean with the interval, bold where it differs."""
    significant = set(
        different[different["p_holm"] < 0.05][["method", "setting", "measure"]].itertuples(
            index=False, name=None
        )
    )
    said = {
        (row.method, row.setting, row.measure): f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in summarised.itertuples()
    }
    maps = dict.fromkeys(zip(summarised["method"], summarised["setting"], strict=True))
    rows = []
    for one in sorted(maps, key=lambda one: one[0].startswith("control")):
        cells = [said.get((*one, measure), "-") for measure in measures]
        bold = [(*one, measure) in significant for measure in measures]
        cells = [f"**{cell}**" if yes else cell for cell, yes in zip(cells, bold, strict=True)]
        if any(cell != "-" for cell in cells):
            rows.append([name_of(*one), *cells])
    return rows


def header(measures: Iterable[str]) -> list[str]:
    return ["map", *(measure + ARROWS[MEASURES[measure].better] for measure in measures)]


def section(name: str, tables: Tables, scenes: int) -> str:
    summarised, different, cost = tables
    seen = {one: min(most or scenes, scenes) for one, most in MODELS[name].items()}
    counts = ", ".join(f"{one.replace('_', ' ')} {count}" for one, count in seen.items())
    parts = [f"## {name}", f"Scenes: {counts}."]
    for family, title in TITLES.items():
        measures = [one for one, said in MEASURES.items() if said.family == family]
        measures = [one for one in measures if one in set(summarised["measure"])]
        if measures:
            parts.append(f"### {title}")
            parts.append(markdown(header(measures), grid(summarised, different, measures)))
    parts.append("### What a map costs")
    rows = [
        [name_of(row.method, row.setting), f"{row.forward_passes:.1f}"] for row in cost.itertuples()
    ]
    parts.append(markdown(["map", "forward passes"], rows))
    return "\n\n".join(parts)


def readme_table(found: dict[str, Tables]) -> str:
    """The rows of both models side by side."""
    cells = {name: grid(*tables[:2], SHOWN) for name, tables in found.items()}
    by_name = {name: {row[0]: row[1:] for row in rows} for name, rows in cells.items()}
    names = list(dict.fromkeys(row[0] for rows in cells.values() for row in rows))
    nothing = ["-"] * len(SHOWN)
    rows = [
        [one, *(cell for name in found for cell in by_name[name].get(one, nothing))]
        for one in names
    ]
    titles = [f"{name}: {title}" for name in found for title in header(SHOWN)[1:]]
    return markdown(["map", *titles], rows)


def write_readme(table: str) -> bool:
    """Between the two marks; False where README has none."""
    text = README.read_text()
    if not all(mark in text for mark in MARKS):
        return False
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    with whole_file(README) as partial:
        partial.write_text(f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name} and README")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    found = {name: tables_of(name, arguments.scenes) for name in MODELS}
    minutes = (time.monotonic() - started) / 60
    low, high = CROWD
    how = HOW.format(
        scenes=arguments.scenes,
        seed=UNSEEN_SEED,
        low=low,
        high=high,
        flow=DEAR["gradient_flow"],
    )
    sections = [section(name, tables, arguments.scenes) for name, tables in found.items()]
    text = "\n\n".join(["# Which map to believe?", machine(), how, *sections]) + "\n"
    print(text)
    print(f"{minutes:.1f} minutes")
    if arguments.save:
        RESULTS.write_text(text)
        for place, table in enumerate(TABLES):
            publish(table, {name: tables[place] for name, tables in found.items()})
        if not write_readme(readme_table(found)):
            print(f"README has no {MARKS[0]}")


if __name__ == "__main__":
    main()
