"""Pictures of explanations. Functions take axes and return axes; matplotlib is used only here.

Maps are shown in inferno: its lightness rises steadily, so it survives greyscale printing and
colour blindness. Jet is kept for `jet_overlay` alone, which reproduces the look of vit-explain.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from rollout.files import whole_file

if TYPE_CHECKING:
    from rollout.explanation import Explanation
    from rollout.scenes import Scene

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
    opacity: float = 0.8,
    unit: str | None = None,
) -> Axes:
    """The map in colour over the greyed and dimmed image, which shows where the map is low.

    Args:
        picture: (height, width, 3) in [0, 1].
        saliency_map: (rows, columns) of any size; it is stretched over the picture, so that patch
            borders fall where the network cut the image.
        vmax: the value shown brightest; give panels that are compared the same one.
        opacity: of the map where it is brightest; where it is 0 it hides nothing.
        unit: what the values mean; draws a colour bar with it.
    """
    height, width = picture.shape[:2]
    grey = 0.1 + 0.5 * np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    plot_picture(grey, ax=ax, title=title)
    vmax = vmax if vmax is not None else float(saliency_map.max()) or 1.0
    image = ax.imshow(
        saliency_map,
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=vmax,
        alpha=opacity * np.sqrt(np.clip(saliency_map / vmax, 0, 1)),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
    if unit is not None:
        _colour_bar(image, ax, unit)
    return ax


def _colour_bar(image: AxesImage, axes: Axes | np.ndarray, unit: str) -> None:
    """A bar of the map's colours with its unit, beside one panel or a whole figure."""
    figure = image.get_figure()
    assert isinstance(figure, Figure)
    shape = {"fraction": 0.046, "pad": 0.03} if isinstance(axes, Axes) else {"aspect": 30}
    bar = figure.colorbar(_opaque(image, top=image.get_clim()[1]), ax=axes, label=unit, **shape)
    bar.ax.ticklabel_format(axis="y", scilimits=(-2, 3))


def _opaque(image: AxesImage, top: float) -> ScalarMappable:
    return ScalarMappable(Normalize(0, top), image.get_cmap())


def new_figure(
    rows: int, columns: int, *, width: float, height: float
) -> tuple[Figure, np.ndarray]:
    """A figure that a notebook shows where it is the last value of a cell, and only there."""
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, figsize=(width, height), layout="constrained", dpi=90
    )
    plt.close(figure)
    return figure, axes


def plot_explanation(explanation: "Explanation") -> Figure:
    """One row per image: what the network saw, and where it looked."""
    from rollout.methods import METHODS

    batch = len(explanation.map)
    figure, axes = new_figure(batch, 2, width=7.2, height=3.3 * batch)
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


def plot_maps(
    picture: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    unit: str,
    shared: bool = True,
    columns: int = 4,
) -> Figure:
    """The image, then one overlay per map, in rows of up to `columns` panels.

    Args:
        picture: (height, width, 3) in [0, 1].
        maps: title to map (rows, columns).
        unit: what a map's values mean.
        shared: one scale for all; False scales each panel to its own maximum, which is then
            written into its title.
    """
    columns = min(columns, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = new_figure(rows, columns, width=2.6 * columns + 0.9, height=2.8 * rows)
    panels = axes.ravel()
    for ax in panels:
        ax.set_axis_off()
    plot_picture(picture, ax=panels[0], title="image")
    top = max(float(values.max()) for values in maps.values()) or 1.0
    for ax, (title, values) in zip(panels[1:], maps.items(), strict=False):
        own = "" if shared else f"\nbrightest: {values.max():.2g}"
        plot_overlay(picture, values, ax=ax, title=title + own, vmax=top if shared else None)
    image = panels[len(maps)].images[-1]
    if shared:
        _colour_bar(image, panels, fill(unit, width=28))
    else:
        label = fill(f"part of the panel's brightest ({unit})", width=28)
        figure.colorbar(_opaque(image, top=1.0), ax=panels, aspect=30).set_label(label)
    return figure


def plot_scenes(scenes: Sequence["Scene"], *, columns: int = 5) -> Figure:
    """Scenes with the classes they hold, each object outlined by its mask."""
    rows = -(-len(scenes) // columns)
    figure, axes = new_figure(rows, columns, width=2.2 * columns, height=2.45 * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, scene in zip(axes.flat, scenes, strict=False):
        plot_picture(scene.image, ax=ax, title=", ".join(scene.masks))
        for mask in scene.masks.values():
            ax.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
    return figure


def save_overlay(explanation: "Explanation", path: str | Path, *, index: int = 0) -> Path:
    """Write one image's map in the look of vit-explain, as large as the network saw the image."""
    picture = explanation.pictures[index].numpy()
    return save_picture(jet_overlay(picture, explanation.saliency_map()[index]), path)


def save_picture(picture: np.ndarray, path: str | Path) -> Path:
    """Write (height, width, 3), in [0, 1] or of uint8, as an image file without axes."""
    if picture.dtype != np.uint8:
        picture = (255 * picture + 0.5).astype(np.uint8)
    with whole_file(path) as partial:
        Image.fromarray(picture).save(partial)
    return Path(path)


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
    return (255 * added / added.max()).astype(np.uint8)
