"""A frame of the explorer as a figure, for files and for pages without a browser behind them."""

from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rollout.explorer.panel import Frame, Panel
from rollout.plots.figure import colour_bar, figure_png, new_figure
from rollout.plots.maps import axes_extent, plot_overlay
from rollout.plots.marks import mark_patch

COLOUR_MAPS = ("inferno", "RdBu_r")  # of maps, and of differences: red speaks for the target

NO_PATCH = "0.5"  # the grey of what no patch covers


def colour_table() -> bytes:
    """256 colours of each colour map, RGB."""
    steps = np.arange(256)
    tables = [matplotlib.colormaps[name](steps, bytes=True)[:, :3] for name in COLOUR_MAPS]
    return np.concatenate(tables).tobytes()


def plot_frame(frame: Frame, picture: np.ndarray) -> Figure:
    """The panels as the browser shows them.

    Args:
        picture: (height, width, 3) in [0, 1].
    """
    height, width = picture.shape[:2]
    labelled = bool(frame.row_labels)
    side = 1.1 if frame.small else 3.2
    lines = -(-len(frame.panels) // frame.across)
    figure, axes = new_figure(
        lines,
        frame.across,
        width=max(side * frame.across, 3.6) + 0.8 * frame.small,
        height=(side * height / width + 0.2 * bool(frame.small and not labelled)) * lines
        + (1.0 if labelled else 0.95),
    )
    if frame.caption:
        said = ". ".join(filter(None, [frame.caption, frame.said]))
        words = fill(f"{frame.source}: {said}", int(13 * figure.get_figwidth()))
        figure.suptitle(words, fontsize="small", x=0.01, ha="left", parse_math=False)
    for ax in axes.flat[len(frame.panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, frame.panels, strict=False):
        _plot_panel(ax, panel, frame, picture)
    if labelled:
        for ax, label in zip(axes[:, 0], frame.row_labels, strict=True):
            ax.set_ylabel(label, fontsize="small", rotation=0, ha="right", va="center")
        for ax, label in zip(axes[0], frame.column_labels, strict=True):
            ax.set_title(label, fontsize="small")
    _bars(axes, frame)
    return figure


def frame_png(frame: Frame, picture: np.ndarray) -> bytes:
    return figure_png(plot_frame(frame, picture))


def _plot_panel(ax: Axes, panel: Panel, frame: Frame, picture: np.ndarray) -> None:
    under = frame.under(panel)
    picture = picture if under.picture is None else under.picture
    height, width = picture.shape[:2]
    extent = axes_extent(picture, under.extent)
    if panel.over:
        look: dict[str, Any] = {"vmax": panel.high, "opacity": frame.opacity, "scale": "max"}
        if panel.bottom:
            look |= {"vmin": panel.bottom, "scale": "log"}
        plot_overlay(picture, panel.values, ax=ax, extent=under.extent, **look)
        ax.set_axis_on()
    else:
        norm = (LogNorm if panel.bottom else Normalize)(panel.low, panel.high)
        values = panel.values.clip(panel.bottom) if panel.bottom else panel.values
        ax.imshow(values, cmap=COLOUR_MAPS[panel.signed], norm=norm, extent=extent)
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), facecolor=NO_PATCH)
    for patch in panel.above(under.patch):
        words = "" if frame.small else f"{panel.values[patch]:.2g}"
        size = height, width
        mark_patch(ax, patch, panel.values.shape, size, words=words, extent=under.extent)
    if under.patch is not None:
        rows, columns = panel.values.shape
        left, right, bottom, top = extent
        cell = (right - left) / columns, (bottom - top) / rows
        corner = left + under.patch[1] * cell[0], top + under.patch[0] * cell[1]
        ax.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="black", linewidth=2.5))
        ax.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="white", linewidth=1.2))
    if not frame.row_labels:
        size_of_title = "xx-small" if frame.small else "medium"
        ax.set_title(panel.title, fontsize=size_of_title, loc="left", wrap=not frame.small)
    if panel.note:
        ax.set_xlabel(panel.note, fontsize="small", loc="left")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _bars(axes: np.ndarray, frame: Frame) -> None:
    """A bar under each panel with a unit; in the grid one for all."""
    for ax, panel in zip(axes.flat, frame.panels, strict=False):
        if panel.unit:
            low, high = frame.bar(panel)
            shape: dict[str, Any] = {"aspect": 30} if frame.small else {}
            logarithmic = panel.bottom > 0 and low > 0
            colour_bar(
                axes[-1] if frame.small else ax,
                high,
                panel.unit,
                low=low,
                colours=COLOUR_MAPS[panel.signed],
                ticks=(low, (low * high) ** 0.5 if logarithmic else (low + high) / 2, high),
                logarithmic=logarithmic,
                above=bool(panel.above(frame.patch)),
                location="bottom",
                fraction=0.05,
                pad=0.03,
                **shape,
            )
