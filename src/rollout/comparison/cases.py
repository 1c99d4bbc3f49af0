"""The images of a comparison with their targets and masks: scenes, or a user's own table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from rollout.collection.inputs import COLUMNS, Inputs, list_images
from rollout.collection.opening import Opened, open_one
from rollout.collection.task import Shard
from rollout.demo.samples import mask_as_seen
from rollout.demo.scenes import CLASSES, Scene, SceneDataset
from rollout.maths.metrics import patch_coverage
from rollout.maths.placement import under_grid
from rollout.models.model import Model

CROWD = (4, 6)  # objects of the scenes whose objects are removed one by one


@dataclass(frozen=True)
class Cases:
    """Some images, each with its targets: T is the most that one of them has.

    Attributes:
        names: of the images, for the table.
        seeds: a number for each image, for controls that are random.
        images: what the network takes, (batch, channels, height, width).
        targets: class indices, (T, batch); an image with fewer repeats its first.
        given: whether a target is the image's own and not such a repetition, (T, batch) of bool.
        masks: of each target, as the network sees it, (T, batch, height, width) in [0, 1].
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Tensor
    targets: Tensor
    given: Tensor
    masks: Tensor

    def coverages(self, grid_size: tuple[int, int], extent: Any = None) -> Tensor:
        """Share of each patch under each target's mask: (T, batch, rows, columns)."""
        masks = self.masks > 0.5
        return torch.stack([patch_coverage(under_grid(one, extent), grid_size) for one in masks])

    def rivals(self, coverages: Tensor, which: int) -> Tensor:
        """What the other targets of each image cover, (batch, rows, columns); 0 without others."""
        others = [other for other in range(len(coverages)) if other != which]
        rival = torch.zeros_like(coverages[0])
        for other in others:
            real = self.given[other] & (self.targets[other] != self.targets[which])
            rival = rival.maximum(coverages[other] * real[:, None, None])
        return rival

    def absent(self, num_classes: int) -> Tensor:
        """A class that is none of the image's targets, (batch,): the next one by number.

        Raises:
            ValueError: every class is a target.
        """
        found = []
        for own in self.targets.T.tolist():
            free = [(own[0] + step) % num_classes for step in range(1, num_classes)]
            free = [one for one in free if one not in own]
            if not free:
                raise ValueError("an image has every class as a target; there is no absent one")
            found.append(free[0])
        return torch.tensor(found)


@dataclass(frozen=True)
class Scenes:
    """Scenes drawn from a seed; every object is a target."""

    seed: int
    count: int
    objects: int | tuple[int, int] = 2

    def __len__(self) -> int:
        return self.count

    def description(self) -> dict[str, Any]:
        return {"seed": self.seed, "count": self.count, "objects": self.objects}

    @property
    def dataset(self) -> SceneDataset:
        return SceneDataset(self.seed, self.count, self.objects)

    def open(self, model: Model, numbers: Sequence[int]) -> Cases:
        scenes = [self.dataset.scene(number) for number in numbers]
        names = [f"scene {number}" for number in numbers]
        images = model.images([Image.fromarray(scene.image) for scene in scenes])
        rows = [_targets_of(model, scene) for scene in scenes]
        return stack_cases(names, numbers, images, rows)


def _targets_of(model: Model, scene: Scene) -> list[tuple[int, Tensor]]:
    return [
        (model.class_index(label), mask_as_seen(model, mask)[0])
        for label, mask in scene.masks.items()
    ]


def stack_cases(
    names: Sequence[str],
    seeds: Sequence[int],
    images: Tensor,
    rows: Sequence[Sequence[tuple[int, Tensor]]],
) -> Cases:
    """Cases of images with (class index, mask) for each of their targets."""
    most = max(map(len, rows))
    padded = [[*row, *[row[0]] * (most - len(row))] for row in rows]
    return Cases(
        tuple(names),
        tuple(seeds),
        images,
        torch.tensor([[row[which][0] for row in padded] for which in range(most)]),
        torch.tensor([[which < len(row) for row in rows] for which in range(most)]),
        torch.stack([torch.stack([row[which][1] for row in padded]) for which in range(most)]),
    )


def check_scene_classes(model: Model) -> None:
    """The scenes' classes must be among the model's labels."""
    missing = sorted(set(CLASSES) - set(model.labels or ()))
    if missing:
        raise ValueError(
            f"{model.name} does not know the scenes' classes, such as {missing[0]!r}; give a table "
            "of your own images with the columns path, target and mask"
        )


@dataclass(frozen=True)
class OwnImages:
    """A user's images with masks, out of a table as `list_images` reads it.

    Attributes:
        table: columns path, target, mask; a row for each target, and none may be missing.
    """

    table: pd.DataFrame

    @classmethod
    def read(cls, inputs: Inputs) -> "OwnImages":
        """Raises ValueError where a row has no target or no mask."""
        table = list_images(inputs)
        for column in ("target", "mask"):
            empty = table[table[column] == ""]
            if len(empty):
                raise ValueError(
                    f"{empty['path'].iloc[0]} has no {column}; a comparison needs a table with the "
                    "columns path, target (class index or label) and mask (a picture that is "
                    "bright where the target is), a row for each target"
                )
        return cls(table.sort_values("path", kind="stable", ignore_index=True))

    @cached_property
    def _groups(self) -> list[list[tuple[str, str, str]]]:
        rows = self.table[list(COLUMNS)].itertuples(index=False, name=None)
        return [list(group) for _, group in groupby(rows, key=lambda row: row[0])]

    def __len__(self) -> int:
        return len(self._groups)

    def description(self) -> dict[str, Any]:
        return {"table": self.table.to_dict("records")}

    def open(self, model: Model, numbers: Sequence[int]) -> Cases:
        """Raises ValueError for an image, mask or target that cannot be used."""
        groups = [self._groups[number] for number in numbers]
        opened = [[_open(model, row) for row in group] for group in groups]
        return stack_cases(
            [group[0][0] for group in groups],
            numbers,
            torch.stack([rows[0].tensor for rows in opened]).to(model.device, model.dtype),
            [[(_index(one), _mask(one)) for one in rows] for rows in opened],
        )


def _open(model: Model, row: tuple[str, str, str]) -> Opened:
    opened = open_one(model, Shard(0, 0, (row,)), 0)
    if isinstance(opened, dict):
        raise ValueError(f"{row[0]}: {opened['error']}")
    return opened


def _index(opened: Opened) -> int:
    assert opened.target is not None
    return opened.target


def _mask(opened: Opened) -> Tensor:
    assert opened.mask is not None
    if not bool((np.asarray(opened.mask) > 0.5).any()):
        raise ValueError(f"{opened.facts['path']}: its mask shows nothing that the network sees")
    return opened.mask


Source = Scenes | OwnImages
