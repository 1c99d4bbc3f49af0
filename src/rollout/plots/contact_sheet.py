"""Many images with their maps, small, side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rollout.plots.figure import new_figure
from rollout.plots.maps import plot_overlay


def plot_contact_sheet(
    pictures: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    columns: int = 6,
) -> Figure:
    """One panel for each image, its map scaled to its own maximum.

    Args:
        pictures: (height, width, 3) in [0, 1].
        maps: (rows, columns), one for each picture.
        titles: what stands above each.
    """
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(rows, columns, width=1.8 * columns, height=2.05 * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, picture, values, title in zip(axes.flat, pictures, maps, titles, strict=False):
        plot_overlay(picture, values, ax=ax, title=title)
        ax.title.set_fontsize("small")
    return figure
