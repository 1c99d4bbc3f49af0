"""Pictures of explanations. Functions take axes and return axes.

Maps are shown in inferno: its lightness rises steadily, so it survives greyscale printing and
colour blindness. Jet is kept for `jet_overlay` alone, which reproduces the look of vit-explain.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout.errors import shown
from rollout.maths.checks import check_array, check_number
from rollout.maths.scales import Scale, along_scale, log_bottom, scale_top, shared_top
from rollout.maths.token_layout import Extent
from rollout.plots.figure import COLOUR_MAP, check_picture, colour_bar, new_figure, own_scales_bar
from rollout.plots.marks import mark_above
from rollout.settings import check_count


class Outlined(Protocol):
    """A picture whose objects' pixels are known, such as `demo.scenes.Scene`."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def masks(self) -> Mapping[str, np.ndarray]: ...


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
    vmin: float | None = None,
    opacity: float = 0.8,
    unit: str | None = None,
    scale: Scale = "auto",
    extent: Extent | None = None,
) -> Axes:
    """The map in colour over the greyed and dimmed image, which shows where the map is low.

    Args:
        picture: (height, width, 3) in [0, 1].
        saliency_map: (rows, columns) of any size; it is stretched over its extent, so that patch
            borders fall where the network cut the image.
        vmax: the value shown brightest; give panels that are compared the same one. By default
            `scale` decides.
        vmin: where a logarithmic scale begins, by default at the map's lowest value above 0; all
            others begin at 0.
        opacity: of the map where it is brightest; where it is 0 it hides nothing.
        unit: what the values mean; draws a colour bar with it.
        scale: "max" ends at the largest value. "auto" too, unless a patch stands far above the
            rest (`maths.dominance`): then it ends below, and patches above are outlined and their
            value written beside them. "percentile" ends at the 99th. "log" ends at the largest, and
            each colour stands for a factor.
        extent: the pixels that the map covers, as `Explanation.extent`; None is all of them.
    """
    check_picture(picture)
    check_array("saliency_map", saliency_map, "rows, columns")
    if not np.isfinite(saliency_map).all():
        raise ValueError("saliency_map must hold finite numbers; this one has NaN or infinity")
    check_number("opacity", opacity)
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    height, width = picture.shape[:2]
    grey = 0.1 + 0.5 * np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    plot_picture(grey, ax=ax, title=title)
    vmax = scale_top(saliency_map, scale) if vmax is None else vmax
    low, logarithmic = 0.0, scale == "log"
    if logarithmic:
        low = log_bottom([saliency_map], vmax) if vmin is None else vmin
    if logarithmic:  # between patches, too, colours stand for factors
        shown = share = along_scale(saliency_map, low, vmax, logarithmic=True)
    else:
        shown = np.minimum(saliency_map, vmax)  # a high patch would bleed into its neighbours
        share = np.clip(shown / vmax, 0, 1)
    ax.imshow(
        shown,
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=1 if logarithmic else vmax,
        alpha=opacity * np.sqrt(share),
        extent=axes_extent(picture, extent),
        interpolation="bilinear",
    )
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if scale in ("auto", "percentile"):
        mark_above(ax, saliency_map, vmax, (height, width), extent)
    if unit is not None:
        over = bool((saliency_map > vmax).any())
        look: dict[str, Any] = {"above": over, "logarithmic": logarithmic, "low": low}
        colour_bar(ax, vmax, unit, fraction=0.046, pad=0.03, **look)
    return ax


def axes_extent(picture: np.ndarray, extent: Extent | None) -> Extent:
    """An extent as matplotlib takes it: left, right, bottom, top, pixels having their centres at
    whole numbers."""
    top, left, bottom, right = extent or (0, 0, *picture.shape[:2])
    return left - 0.5, right - 0.5, bottom - 0.5, top - 0.5


def plot_maps(
    picture: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    unit: str,
    shared: bool = True,
    columns: int = 4,
    scale: Scale = "auto",
    extent: Extent | None = None,
) -> Figure:
    """The image, then one overlay per map, in rows of up to `columns` panels.

    Args:
        picture: (height, width, 3) in [0, 1].
        maps: title to map (rows, columns).
        unit: what a map's values mean.
        shared: one scale for all; False scales each panel by itself, and writes into its title
            what is brightest.
        scale: where scales end, as for `plot_overlay`.
        extent: the pixels that the maps cover, as `Explanation.extent`.
    """
    check_picture(picture)
    if not isinstance(maps, Mapping):
        raise TypeError(f"maps must be a table from title to map, got {shown(maps)}")
    for name, values in maps.items():
        check_array(f"the map {name}", values, "rows, columns")
    columns = check_count("columns", columns)
    columns = min(columns, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = new_figure(rows, columns, width=2.6 * columns + 0.9, height=2.8 * rows)
    panels = axes.ravel()
    for ax in panels:
        ax.set_axis_off()
    plot_picture(picture, ax=panels[0], title="image")
    top = shared_top(maps.values(), scale)
    tops = {name: top if shared else scale_top(values, scale) for name, values in maps.items()}
    bottom = log_bottom(maps.values(), top) if scale == "log" and shared else None
    for ax, (title, values) in zip(panels[1:], maps.items(), strict=False):
        own = "" if shared else "\n" + say_scale(values, tops[title])
        look: dict[str, Any] = {"vmax": tops[title], "vmin": bottom, "scale": scale}
        plot_overlay(picture, values, ax=ax, title=title + own, extent=extent, **look)
    over = any((values > tops[title]).any() for title, values in maps.items())
    if shared:
        place: dict[str, Any] = {"above": over, "aspect": 30, "logarithmic": scale == "log"}
        colour_bar(panels, top, fill(unit, width=28), low=bottom or 0.0, **place)
    else:
        place = {"above": over, "aspect": 30, "logarithmic": scale == "log"}
        own_scales_bar(panels, fill(unit, width=28), **place)
    return figure


def plot_map_rows(
    rows: Sequence[tuple[str, np.ndarray, Mapping[str, np.ndarray]]],
    *,
    unit: str,
    scale: Scale = "auto",
    size: float = 2.7,
) -> Figure:
    """Several images, each in a row with its maps, every map on a scale of its own.

    Args:
        rows: what stands over the image, the image (height, width, 3) in [0, 1], and title to map
            (rows, columns).
        unit: what a map's values mean.
        scale: where scales end, as for `plot_overlay`.
        size: of a panel, in inches.
    """
    across = 1 + max(len(maps) for _, _, maps in rows)
    width, height = size * across + 1.2, (size + 0.4) * len(rows)
    figure, axes = new_figure(len(rows), across, width=width, height=height)
    for ax in axes.flat:
        ax.set_axis_off()
    above = False
    for (name, picture, maps), panels in zip(rows, axes, strict=True):
        plot_picture(picture, ax=panels[0], title=name)
        for ax, (title, values) in zip(panels[1:], maps.items(), strict=False):
            top = scale_top(values, scale)
            above = above or bool((values > top).any())
            lines = f"{title}\n{say_scale(values, top)}"
            plot_overlay(picture, values, ax=ax, title=lines, vmax=top, scale=scale)
    shape: dict[str, Any] = {"aspect": 30, "logarithmic": scale == "log"}
    own_scales_bar(axes, fill(unit, width=28), above=above, **shape)
    return figure


def say_scale(saliency_map: np.ndarray, top: float) -> str:
    """What the brightest colour of a panel stands for."""
    if (saliency_map > top).any():
        return f"scale ends at {top:.2g}"
    return f"brightest: {saliency_map.max():.2g}"


def plot_overlays(
    picture: np.ndarray, panels: Mapping[str, tuple[np.ndarray, str]], *, columns: int = 3
) -> Figure:
    """Overlays of one image, each with its own scale, bar and unit, in rows of `columns`.

    Args:
        picture: (height, width, 3) in [0, 1].
        panels: title to a map (rows, columns) and what its values mean.
    """
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=3.6 * columns, height=3.1 * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, (values, unit)) in zip(axes.flat, panels.items(), strict=False):
        plot_overlay(picture, values, ax=ax, title=title, unit=unit)
    return figure


def plot_scenes(scenes: Sequence[Outlined], *, columns: int = 5) -> Figure:
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
