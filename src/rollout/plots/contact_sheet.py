"""Many images with their maps, small, side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from rollout.maths.token_layout import Extent
from rollout.plots.figure import COLOUR_MAP, colour_bar, new_figure
from rollout.plots.maps import plot_overlay
from rollout.settings import check_count, check_list

MOST_COLUMNS = 100


def plot_contact_sheet(
    pictures: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    extents: Sequence[Extent | None] | None = None,
    *,
    columns: int = 6,
) -> Figure:
    """One panel for each image, its map scaled to its own maximum.

    Args:
        pictures: (height, width, 3) in [0, 1].
        maps: (rows, columns), one for each picture.
        titles: what stands above each.
        extents: the pixels that each map covers, as `Explanation.extent`; None is all of them.
    """
    columns = check_count("columns", columns)
    for name, several in {"pictures": pictures, "maps": maps, "titles": titles}.items():
        check_list(name, several)
    if not len(pictures) == len(maps) == len(titles):
        raise ValueError(
            f"there must be as many maps and titles as pictures, got {len(maps)} maps and "
            f"{len(titles)} titles for {len(pictures)} pictures"
        )
    columns = min(columns, MOST_COLUMNS)
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(rows, columns, width=1.8 * columns, height=2.05 * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    panels = zip(pictures, maps, titles, extents or [None] * len(maps), strict=True)
    for ax, (picture, values, title, extent) in zip(axes.flat, panels, strict=False):
        plot_overlay(picture, values, ax=ax, title=title, extent=extent)
        ax.title.set_fontsize("small")
    return figure


def plot_mean_maps(means: Mapping[str, np.ndarray], *, columns: int = 6) -> Figure:
    """Means of maps on one scale, each under its name.

    Args:
        means: name to map (rows, columns), each of sum 1.
    """
    rows = -(-len(means) // columns)
    figure, axes = new_figure(rows, columns, width=1.8 * columns, height=2.05 * rows)
    top = max(float(mean.max()) for mean in means.values())
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, mean) in zip(axes.flat, means.items(), strict=False):
        ax.imshow(mean, cmap=COLOUR_MAP, vmin=0, vmax=top)
        ax.set_title(name[:22], fontsize="small")
    colour_bar(axes, top, "mean share of a patch", small=True)
    return figure
