"""Where the images of a comparison come from: scenes that are drawn, or a user's own table."""

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
from rollout.comparison.cases import Cases, stack_cases
from rollout.demo.samples import mask_as_seen
from rollout.demo.scenes import CLASSES, Scene, SceneDataset
from rollout.models.model import Model

CROWD = (4, 6)  # objects of the scenes whose objects are removed one by one


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
        order = np.argsort(pd.factorize(table["path"])[0], kind="stable")
        return cls(table.iloc[order].reset_index(drop=True))  # an image's rows stand together

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
