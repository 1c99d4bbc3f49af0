"""The images that ship with the project: emoji scenes with their masks, and photographs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rollout.demo.scenes import CLASSES
from rollout.files import SAMPLES, as_path, check_shipped, find_sample
from rollout.maths.metrics import patch_coverage


def sample_names() -> list[str]:
    """Names that `sample_path` knows, scenes first."""
    files = sorted(SAMPLES.glob("scene_*.png")) + sorted(SAMPLES.glob("photo_*.jpg"))
    return [file.stem for file in files if not file.stem.endswith("_mask")]


def sample_path(name: str | Path) -> Path:
    """The file of a sample by its name, such as "scene_cat_dog"; any other path is given back.

    Raises:
        FileNotFoundError: neither a sample nor a file.
        ValueError: a sample that is damaged.
    """
    path = find_sample(name) or as_path(name)
    if path.is_file():
        return path
    raise FileNotFoundError(f"no file {name}, and the samples are {', '.join(sample_names())}")


def load_masks(name: str | Path) -> dict[str, np.ndarray]:
    """The answer key of a scene: class name to (height, width) bool mask; {} for a photograph."""
    path = sample_path(name)
    key = path.with_name(f"{path.stem}_mask.png")
    if not key.is_file():
        return {}
    numbers = np.asarray(Image.open(check_shipped(key)))
    return {CLASSES[number - 1]: numbers == number for number in np.unique(numbers) if number}


def load_coverage(name: str | Path, grid_size: tuple[int, int]) -> dict[str, Tensor]:
    """The answer key on the patch grid: class name to share of each patch, (1, rows, columns)."""
    masks = {label: torch.from_numpy(mask)[None] for label, mask in load_masks(name).items()}
    return {label: patch_coverage(mask, grid_size) for label, mask in masks.items()}
