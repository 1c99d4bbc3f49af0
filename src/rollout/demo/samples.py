"""The images that ship with the project: emoji scenes with their masks, and photographs."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rollout.demo.scenes import CLASSES
from rollout.files import SAMPLES, as_path, check_shipped, find_sample
from rollout.maths.checks import check_array
from rollout.maths.placement import coverage_of, patch_coverage, under_grid
from rollout.maths.token_layout import Extent, TokenLayout
from rollout.models.model import Model, check_model


def sample_names() -> list[str]:
    """Names that `sample_path` knows, scenes first."""
    files = sorted(SAMPLES.glob("scene_*.png")) + sorted(SAMPLES.glob("photo_*.jpg"))
    return [file.stem for file in files if not file.stem.endswith("_mask")]


def scene_names() -> list[str]:
    """Names of the samples that come with an answer key: scenes with masks."""
    return [name for name in sample_names() if _mask_file(sample_path(name)).is_file()]


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
    key = _mask_file(sample_path(name))
    if not key.is_file():
        return {}
    numbers = np.asarray(Image.open(check_shipped(key)))
    return {CLASSES[number - 1]: numbers == number for number in np.unique(numbers) if number}


def _mask_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}_mask.png")


def load_coverage(
    name: str | Path, grid_size: tuple[int, int], extent: Extent | None = None
) -> dict[str, Tensor]:
    """The answer key on the patch grid: class name to share of each patch, (1, rows, columns).

    Args:
        extent: the pixels of the scene that the grid covers; None is all of them.
    """
    masks = {label: torch.from_numpy(mask)[None] for label, mask in load_masks(name).items()}
    return {
        label: patch_coverage(under_grid(mask, extent), grid_size) for label, mask in masks.items()
    }


def answer_key(
    model: Model, name: str | Path, layout: TokenLayout | None = None
) -> dict[str, Tensor]:
    """`load_coverage` of what the model sees of a scene: cropped and resized as its images are.

    Args:
        layout: where the patches lie; by default the model's.

    Returns:
        Class name to share of each patch, (1, rows, columns), of each object of which a part is
        seen; {} for a photograph.
    """
    check_model(model)
    layout = _layout(model, layout)
    masks = load_masks(name)
    covered = {label: seen_coverage(model, [mask], layout) for label, mask in masks.items()}
    return {label: coverage for label, coverage in covered.items() if coverage.any()}


def _layout(model: Model, layout: TokenLayout | None) -> TokenLayout:
    if layout is not None and not isinstance(layout, TokenLayout):
        raise TypeError(f"layout must be a TokenLayout, got {type(layout).__name__}")
    return layout or model.layout


def object_coverage(model: Model, name: str | Path, layout: TokenLayout | None = None) -> Tensor:
    """Share of each patch that any object of a scene covers, (1, rows, columns)."""
    check_model(model)
    layout = _layout(model, layout)
    blank = torch.zeros(1, *layout.grid_size)
    return sum(answer_key(model, name, layout).values(), start=blank)


def seen_coverage(model: Model, masks: Iterable[np.ndarray], layout: TokenLayout) -> Tensor:
    """Share of each patch under masks (height, width), cropped and resized as the model's images.

    Returns:
        (masks, rows, columns).
    """
    return torch.cat([coverage_of(mask_as_seen(model, mask) > 0.5, layout) for mask in masks])


def mask_as_seen(model: Model, mask: np.ndarray) -> Tensor:
    """A mask (height, width) cropped and resized as the model does it with images.

    Returns:
        (1, height, width) in [0, 1], of the size that the network takes.
    """
    check_model(model)
    check_array("mask", mask, "height, width")
    white = Image.fromarray(np.uint8(255 * (mask > 0.5))).convert("RGB")
    return model.pictures(model.images(white)).mean(dim=-1)
