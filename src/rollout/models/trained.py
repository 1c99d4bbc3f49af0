"""What a file's weights were trained for: how many classes, which size of images."""

from collections.abc import Mapping
from math import isqrt, prod
from typing import Any

from torch import Tensor

from rollout.models.checkpoints import Checkpoint


def check_classes(checkpoint: Checkpoint, classes: int, asked: int | None) -> None:
    if asked not in (None, 0, classes):
        has = f"a classifier of {classes} classes" if classes else "no classifier"
        raise ValueError(
            f"{checkpoint.path} has {has}; num_classes={asked} would make one of random numbers; "
            "leave num_classes out"
        )


def check_patches(
    checkpoint: Checkpoint, found: tuple[int, ...], own: tuple[int, ...], options: Mapping[str, Any]
) -> None:
    """timm would resample the weights of patches as well, for an architecture that is another."""
    if found != own and "patch_size" not in options:
        raise ValueError(
            f"{checkpoint.path} has patches of {' x '.join(map(str, found))} pixels, expected "
            f"{' x '.join(map(str, own))}; name the architecture that it was made for, or give "
            "patch_size to have them resampled"
        )


def num_classes(tensors: Mapping[str, Tensor], classifier: str | tuple[str, ...] | None) -> int:
    """As many as the file's classifier has rows; 0 where it has no classifier."""
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    for name in (*names, "head", "head.fc", "fc"):
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.dim() >= 2:
            return weight.shape[0]
    projection = tensors.get("visual.proj")  # of CLIP; timm makes it the classifier
    return projection.shape[-1] if projection is not None and projection.dim() == 2 else 0


def trained_size(tensors: Mapping[str, Tensor], sketch: Any) -> dict[str, tuple[int, int]]:
    """The size of the images that the file was trained on, as an argument for timm.

    It is read off the number of position embeddings; none if it is timm's own, or unknown.
    """
    patches: Any = getattr(sketch, "patch_embed", None)
    grid: tuple[int, ...] = getattr(patches, "grid_size", None) or ()
    for name, own in sketch.state_dict().items() if grid else ():
        side = _side(name, tensors.get(name), own, prod(grid))
        if side and (side, side) != grid:
            height, width = patches.patch_size
            return {"img_size": (side * height, side * width)}
    return {}


def _side(name: str, found: Tensor | None, own: Tensor, num_patches: int) -> int:
    """How many patches a side has by a file's position embeddings; 0 where they do not tell."""
    if found is None or found.shape == own.shape or found.dim() != own.dim():
        return 0
    if name == "pos_embed" and own.dim() == 3:
        count = found.shape[1] - (own.shape[1] - num_patches)
        return isqrt(count) if count > 0 and isqrt(count) ** 2 == count else 0
    if name.endswith("relative_position_bias_table"):
        offsets = found.shape[0] - 3  # three more for the class token; -side to side, both ways
        return (isqrt(offsets) + 1) // 2 if offsets > 0 and isqrt(offsets) ** 2 == offsets else 0
    return 0
