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


def trained_size(positions: Tensor | None, sketch: Any) -> dict[str, tuple[int, int]]:
    """The image size of as many position embeddings, as an argument; none if it is timm's own."""
    own = getattr(sketch, "pos_embed", None)
    patches: Any = getattr(sketch, "patch_embed", None)
    grid = getattr(patches, "grid_size", None)
    if positions is None or own is None or grid is None or own.dim() != 3 or positions.dim() != 3:
        return {}
    count = positions.shape[1] - (own.shape[1] - prod(grid))
    side = isqrt(max(count, 0))
    if count == prod(grid) or side * side != count or not side:
        return {}
    height, width = patches.patch_size
    return {"img_size": (side * height, side * width)}
