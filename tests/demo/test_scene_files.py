"""Scenes as files: the table's pictures and masks are those of the scenes."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rollout.demo.scene_files import write_scenes
from rollout.demo.scenes import SceneDataset


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_files_are_the_scenes_of_the_seed(tmp_path: Path) -> None:
    table = pd.read_csv(write_scenes(tmp_path / "photos", 3, seed=4))
    for number, row in table.iterrows():
        scene = SceneDataset(4, 3).scene(int(number))
        np.testing.assert_array_equal(pixels(tmp_path / "photos" / row["path"]), scene.image)
        covered = np.any(list(scene.masks.values()), axis=0)
        np.testing.assert_array_equal(pixels(tmp_path / "photos" / row["mask"]) == 255, covered)
        assert row["objects"].split(", ") == list(scene.masks)
