"""The images that ship with the project: emoji scenes with their masks, and photographs."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from rollout.files import DATA
from rollout.metrics import patch_coverage
from rollout.scenes import CLASSES, Scene, draw_scene

SAMPLES = DATA / "samples"
# The classes of each scene and the seed that draws it; the first four show the subjects of
# vit-explain's README.
SCENE_SEEDS = {
    "cat_dog": (("cat", "dog"), 107),
    "bird_dog": (("bird", "dog"), 101),
    "airplane": (("airplane",), 103),
    "airplane_tree": (("airplane", "tree"), 102),
    "boat_fish": (("boat", "fish"), 109),
    "car_house": (("car", "house"), 104),
    "flower_fruit": (("flower", "fruit"), 110),
    "ball_cat_car": (("ball", "cat", "car"), 103),
}


def sample_names() -> list[str]:
    """Names that `sample_path` knows, scenes first."""
    files = sorted(SAMPLES.glob("scene_*.png")) + sorted(SAMPLES.glob("photo_*.jpg"))
    return [file.stem for file in files if not file.stem.endswith("_mask")]


def sample_path(name: str | Path) -> Path:
    """The file of a sample by its name, such as "scene_cat_dog"; any other path is given back.

    Raises:
        FileNotFoundError: neither a sample nor a file.
    """
    for candidate in (SAMPLES / f"{name}.png", SAMPLES / f"{name}.jpg", Path(name)):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"no file {name}, and the samples are {', '.join(sample_names())}")


def load_masks(name: str | Path) -> dict[str, np.ndarray]:
    """The answer key of a scene: class name to (height, width) bool mask; {} for a photograph."""
    path = sample_path(name)
    key = path.with_name(f"{path.stem}_mask.png")
    if not key.is_file():
        return {}
    numbers = np.asarray(Image.open(key))
    return {CLASSES[number - 1]: numbers == number for number in np.unique(numbers) if number}


def load_coverage(name: str | Path, grid_size: tuple[int, int]) -> dict[str, Tensor]:
    """The answer key on the patch grid: class name to share of each patch, (1, rows, columns)."""
    masks = {label: torch.from_numpy(mask)[None] for label, mask in load_masks(name).items()}
    return {label: patch_coverage(mask, grid_size) for label, mask in masks.items()}


def save_scene(scene: Scene, path: Path) -> None:
    """Write the image, and beside it the masks: a palette image, 0 or 1 + the class's number."""
    numbers = np.zeros(scene.image.shape[:2], np.uint8)
    for name, mask in scene.masks.items():
        numbers[mask] = 1 + CLASSES.index(name)
    key = Image.fromarray(numbers)
    key.putpalette(np.uint8(255 * colormaps["tab20"](np.arange(1 + len(CLASSES)))[:, :3]).tobytes())
    Image.fromarray(scene.image).save(path, optimize=True)
    key.save(path.with_name(f"{path.stem}_mask.png"), optimize=True)


def draw_samples(folder: Path = SAMPLES) -> None:
    """Make the shipped scenes anew."""
    for name, (classes, seed) in SCENE_SEEDS.items():
        save_scene(draw_scene(np.random.default_rng(seed), classes), folder / f"scene_{name}.png")
