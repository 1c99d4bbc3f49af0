"""How well each map finds the object that it was asked for, with intervals and controls.

    OMP_NUM_THREADS=1 python benchmarks/quality.py [--scenes 500] [--save]

Half an hour for both models on one core.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from table import machine, markdown
from tqdm.auto import trange

from rollout import load_model
from rollout.demo.quality import UNSEEN_SEED, class_maps_of, measure_case
from rollout.demo.remedies import controls
from rollout.demo.scenes import SceneDataset
from rollout.explanations.recording import record_model
from rollout.maths.metrics import mean_interval
from rollout.models.model import Model
from rollout.settings import Settings

MODELS = ("demo", "dinov2_scenes")
MAPS = {
    "gradient rollout": ("gradient_rollout", Settings()),
    "gradient rollout, max, 0.9": ("gradient_rollout", Settings("max", 0.9)),
    "attention rollout": ("attention_rollout", Settings()),
    "attention rollout, from block 2": ("attention_rollout", Settings(start_block=1)),
    "raw attention, last block": ("raw_attention", Settings()),
}
MEASURES = ("peak", "average precision", "share")
HEADER = ("map", "peak on the target", "average precision", "mass on target against rival")
RESULTS = Path(__file__).with_name("RESULTS_QUALITY.md")
HOW = """\
{scenes} scenes of two objects that neither model was trained on (seed {seed}), each object the
target once and the rival once. Means with 95 % intervals by bootstrap over the scenes; the two
cases of a scene count together. The last two maps know nothing of the image."""


def cases(model: Model, scenes: int, batch_size: int = 20) -> Iterator[pd.DataFrame]:
    """A row per scene, target and map."""
    unseen = SceneDataset(UNSEEN_SEED, scenes, objects=2)
    for start in trange(0, scenes, batch_size, desc=model.name, unit="batch"):
        numbers = range(start, min(start + batch_size, scenes))
        batch = [unseen.scene(number) for number in numbers]
        recording = record_model(model, [Image.fromarray(scene.image) for scene in batch])
        for coverages, maps in class_maps_of(recording, batch, MAPS):
            for name, found in (maps | controls(next(iter(maps.values())))).items():
                measured = measure_case(found, *coverages).numpy()
                yield pd.DataFrame(
                    {"scene": numbers, "map": name, **dict(zip(MEASURES, measured, strict=True))}
                )


def said(values: pd.Series) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*mean_interval(values.dropna().to_numpy()))


def section(name: str, scenes: int) -> str:
    table = pd.concat(cases(load_model(name), scenes))
    by_scene = table.groupby(["map", "scene"], sort=False)[list(MEASURES)].mean()
    rows = [
        (map_name, *(said(of_map[measure]) for measure in MEASURES))
        for map_name, of_map in by_scene.groupby("map", sort=False)
    ]
    return f"## {name}\n\n{markdown(HEADER, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    how = HOW.format(scenes=arguments.scenes, seed=UNSEEN_SEED)
    sections = [section(name, arguments.scenes) for name in MODELS]
    text = "\n\n".join(["# Which map finds the object?", machine(), how, *sections]) + "\n"
    if arguments.save:
        RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
