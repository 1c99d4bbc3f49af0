"""Scenes as files, with a table of them: a collection whose answers are known."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rollout.demo.scenes import SceneDataset
from rollout.files import whole_file


def write_scenes(folder: str | Path, count: int, *, seed: int = 0) -> Path:
    """Write scenes of one to three objects, a mask of each scene's objects, and scenes.csv.

    Returns:
        The table's file, with the columns path, mask and objects; paths start from its folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        scene = SceneDataset(seed, count).scene(number)
        path, mask = f"scene_{number:04d}.png", f"scene_{number:04d}_mask.png"
        Image.fromarray(scene.image).save(folder / path)
        objects = np.any(list(scene.masks.values()), axis=0)
        Image.fromarray(255 * objects.astype(np.uint8)).save(folder / mask)
        rows.append({"path": path, "mask": mask, "objects": ", ".join(scene.masks)})
    table = folder / "scenes.csv"
    with whole_file(table) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
    return table


def empty_folder(folder: Path) -> Path:
    """A folder that is there and empty; what an earlier run left in it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
