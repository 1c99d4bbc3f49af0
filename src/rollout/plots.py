"""Pictures of explanations. Functions take axes and return axes; matplotlib is used only here.

Maps are shown in inferno: its lightness rises steadily, so it survives greyscale printing and
colour blindness. Jet is kept for `jet_overlay` alone, which reproduces the look of vit-explain.
"""

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from rollout.explanation import Explanation

COLOUR_MAP = "inferno"


def plot_picture(picture: np.ndarray, *, ax: Axes, title: str = "") -> Axes:
    """An image (height, width, 3) without axes."""
    ax.imshow(picture)
    ax.set_title(title, fontsize="medium")
    ax.set_axis_off()
    return ax


def plot_overlay(
    picture: np.ndarray,
    saliency_map: np.ndarray,
    *,
    ax: Axes,
    title: str = "",
    vmax: float | None = None,
    opacity: float = 0.65,
    unit: str | None = None,
) -> Axes:
    """The map in colour over the greyed image.

    Args:
        picture: (height, width, 3) in [0, 1].
        saliency_map: (rows, columns) of any size; it is stretched over the picture, so that patch
            borders fall where the network cut the image.
        vmax: the value shown brightest; give panels that are compared the same one.
        unit: what the values mean; draws a colour bar with it.
    """
    height, width = picture.shape[:2]
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    plot_picture(grey, ax=ax, title=title)
    image = ax.imshow(
        saliency_map,
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=vmax if vmax is not None else float(saliency_map.max()) or 1.0,
        alpha=opacity,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
    if unit is not None:
        _colour_bar(image, ax, unit)
    return ax


def _colour_bar(image: ScalarMappable, ax: Axes, unit: str) -> None:
    """Opaque colours and powers of ten that a reader can subtract."""
    figure = ax.get_figure()
    assert figure is not None
    opaque = ScalarMappable(Normalize(*image.get_clim()), image.get_cmap())
    bar = figure.colorbar(opaque, ax=ax, fraction=0.046, pad=0.03, label=unit)
    bar.formatter.set_powerlimits((-2, 3))
    bar.update_ticks()


def plot_explanation(explanation: "Explanation") -> Figure:
    """One row per image: what the network saw, and where it looked."""
    from rollout.explanation import METHODS

    batch = len(explanation.map)
    figure = Figure(figsize=(7.2, 3.3 * batch), layout="constrained")
    axes = figure.subplots(batch, 2, squeeze=False)
    for index, (left, right) in enumerate(axes):
        picture = explanation.pictures[index].numpy()
        plot_picture(picture, ax=left, title="image")
        plot_overlay(
            picture,
            explanation.map[index].numpy(),
            ax=right,
            title=explanation.title(index),
            unit=METHODS[explanation.method].unit,
        )
    return figure


def jet_overlay(picture: np.ndarray, saliency_map: np.ndarray) -> np.ndarray:
    """The published look of vit-explain: jet added to the image, the brightest value scaled to 1.

    Args:
        picture: (height, width, 3) in [0, 1].
        saliency_map: (height, width), non-negative.

    Returns:
        (height, width, 3) of uint8.
    """
    scaled = saliency_map / (saliency_map.max() or 1.0)
    added = matplotlib.colormaps["jet"](scaled)[..., :3] + picture
    return np.uint8(255 * added / added.max())
