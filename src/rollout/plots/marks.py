"""Marks on a picture: single patches outlined, with a few words beside them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from rollout.maths.dominance import above
from rollout.maths.token_layout import Extent

ABOVE = "#66ff66"  # no colour of inferno, nor of the outlines of traced patches
OUTLINE = [withStroke(linewidth=2.5, foreground="black")]


def mark_patch(
    ax: Axes,
    patch: tuple[int, int],
    grid_size: tuple[int, int],
    size: tuple[int, int],
    *,
    colour: str = ABOVE,
    words: str = "",
    extent: Extent | None = None,
) -> None:
    """Outline one patch of a picture.

    Args:
        patch: (row, column).
        grid_size: (rows, columns).
        size: (height, width) of the picture in pixels.
        words: written beside it, on the side where there is room.
        extent: the pixels that the grid covers; None is all of them.
    """
    (row, column), (rows, columns) = patch, grid_size
    begin, side, end, far = extent or (0, 0, *size)
    tall, wide = (end - begin) / rows, (far - side) / columns
    left, top = side + column * wide - 0.5, begin + row * tall - 0.5
    look: dict[str, Any] = {
        "fill": False,
        "edgecolor": colour,
        "linewidth": 1.3,
        "path_effects": OUTLINE,
    }
    ax.add_patch(Rectangle((left, top), wide, tall, **look))
    if words:
        right = column < columns / 2
        ax.text(
            left + 1.3 * wide if right else left - 0.3 * wide,
            top + tall / 2,
            words,
            color=colour,
            fontsize="small",
            ha="left" if right else "right",
            va="center",
            path_effects=OUTLINE,
        )


def mark_above(
    ax: Axes,
    saliency_map: np.ndarray,
    top: float,
    size: tuple[int, int],
    extent: Extent | None = None,
) -> list[tuple[int, int]]:
    """Outline the patches that a scale leaves out, the highest with its value; returns them."""
    patches = above(np.abs(saliency_map), top)
    for place, (row, column) in enumerate(patches):
        words = "" if place else f"{saliency_map[row, column]:.2g}"
        mark_patch(ax, (row, column), saliency_map.shape, size, words=words, extent=extent)
    return patches


def write_below(ax: Axes, words: str) -> None:
    """A few words under a picture; nothing for ""."""
    if words:
        place = ax.transAxes
        ax.text(0.5, -0.03, words, fontsize="small", ha="center", va="top", transform=place)
