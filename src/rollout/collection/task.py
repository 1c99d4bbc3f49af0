"""What is asked of each image of a collection, and what is said of it in the file of settings."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import Any

import torch

from rollout.errors import shown
from rollout.models.model import Model
from rollout.settings import (
    METHODS,
    HeadFusion,
    Settings,
    check_backward,
    check_count,
    check_discard_ratio,
    check_flag,
    check_head_fusion,
    check_method,
)

PREDICTED, GIVEN = "predicted", "given"
VERSIONS = ("rollout-workbench", "torch", "torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class Shard:
    """Some images of a collection: one task, one file.

    Attributes:
        images: rows of `inputs.list_images`, as tuples (path, target, mask).
        first: the number of the first image in the whole collection.
    """

    number: int
    first: int
    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Task:
    """The maps of one image; all come from one forward pass.

    Attributes:
        targets: class indices, "predicted", or "given": that of the image's row in the inputs, the
            predicted one where there is none.
        knobs: what is the same for all maps.
        batch: images in one forward pass.
        overlays: whether a picture of each map is written.
    """

    methods: tuple[str, ...]
    targets: tuple[int | str, ...]
    head_fusions: tuple[HeadFusion, ...]
    discard_ratios: tuple[float, ...]
    knobs: Settings = field(default_factory=Settings)
    batch: int = 32
    overlays: bool = False

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_flag("overlays", self.overlays)
        for method in self.methods:
            check_method(method)
        for head_fusion in self.head_fusions:
            check_head_fusion(head_fusion)
        for name in ("methods", "targets", "head_fusions", "discard_ratios"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each once; got {list(values)}")
        for method in self.methods:
            check_backward(self.knobs.backward, method)
        for discard_ratio in self.discard_ratios:
            check_discard_ratio(discard_ratio)

    @property
    def gradients(self) -> bool:
        return any(METHODS[method].gradients for method in self.methods)

    def targets_of(self, method: str) -> tuple[int | str, ...]:
        """A map that is blind to the class is made once; its row speaks of the first target."""
        return self.targets if METHODS[method].gradients else self.targets[:1]

    def description(self) -> dict[str, Any]:
        """What decides the numbers in the table; the size of a batch does not."""
        said = asdict(self)
        del said["batch"]
        knobs = said.pop("knobs")
        del knobs["head_fusion"], knobs["discard_ratio"]
        return said | knobs


def find_targets(model: Model, wanted: Sequence[int | str]) -> tuple[int | str, ...]:
    """Class indices, "predicted" and "given", from those, labels, and patterns such as "*cat*".

    Raises:
        ValueError: a label that is unknown, or a pattern that no label fits.
    """
    found: list[int | str] = []
    for target in wanted:
        if isinstance(target, str) and target in (PREDICTED, GIVEN):
            found.append(target)
        elif isinstance(target, str) and any(sign in target for sign in "*?["):
            found += _matching(model, target)
        else:
            found.append(model.class_index(target))
    return tuple(dict.fromkeys(found))


def _matching(model: Model, pattern: str) -> list[int]:
    labels = model.labels or ()
    found = [
        index for index, label in enumerate(labels) if fnmatchcase(label.lower(), pattern.lower())
    ]
    if not found:
        raise ValueError(f"no label of {model.name} fits the target {shown(pattern)}")
    return found


def hash_weights(model: Model) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_task(model: Model, weights: str, task: Task, shard_size: int) -> dict[str, Any]:
    """The file of settings: all that decides what stands in the table, as plain JSON."""
    return {
        "model": describe_model(model, weights),
        **task.description(),
        "shard_size": shard_size,
        "versions": versions(),
    }


def describe_model(model: Model, weights: str) -> dict[str, str]:
    """What of a model decides its maps; `weights` is their hash."""
    return {"name": model.name, "weights": weights, "transform": _said(model.transform)}


def versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONS}


def _said(transform: Callable[..., Any]) -> str:
    """Its settings as it prints them, without an address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(transform).split()))
