"""What a whole collection looks like: means of maps, and the pictures behind rows of its table."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from rollout.collection.table import extent_of, map_of
from rollout.models.model import Model
from rollout.plots.contact_sheet import plot_contact_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def average_maps(table: pd.DataFrame, by: str = "label") -> dict[str, np.ndarray]:
    """The mean of the maps of each group of rows, every map scaled to sum 1 before.

    Args:
        table: of a collection; rows without a map are left out.
        by: the column whose values are the groups.

    Returns:
        Value to mean, (rows, columns); the largest group first.

    Raises:
        ValueError: maps of one group differ in size.
    """
    found: dict[str, np.ndarray] = {}
    whole = table[table["error"].isna()]
    for value in whole[by].value_counts().index:
        maps = [map_of(row) for row in whole[whole[by] == value].to_dict("records")]
        if len({one.shape for one in maps}) > 1:
            raise ValueError(f"the maps of {value!r} have different sizes; there is no mean")
        found[str(value)] = np.mean([one / (one.sum() or 1.0) for one in maps], axis=0)
    return found


def pictures_of(model: Model, table: pd.DataFrame) -> list[np.ndarray]:
    """The images of some rows as the network saw them, (height, width, 3) in [0, 1] each."""
    pictures = [model.pictures(model.images(path))[0] for path in table["path"]]
    return [picture.to(torch.float32).numpy() for picture in pictures]


def contact_sheet(model: Model, table: pd.DataFrame, column: str) -> "Figure":
    """Some rows as pictures with their maps, what `column` says above each."""
    titles = [f"{row[column]:.2f}: {row['label'] or ''}"[:22] for _, row in table.iterrows()]
    maps = [map_of(row) for _, row in table.iterrows()]
    extents = [extent_of(row) for _, row in table.iterrows()]
    return plot_contact_sheet(pictures_of(model, table), maps, titles, extents)
