"""A frame of the explorer as a figure, for files and for pages without a browser behind them."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rollout.explorer.canvas import COLOUR_MAPS
from rollout.explorer.frame import Frame, Panel, grid_frame, main_frame
from rollout.explorer.sources import Sources
from rollout.figures import figure_png
from rollout.model import ImageSource, Model
from rollout.plots import new_figure, plot_overlay


def plot_frame(frame: Frame, picture: np.ndarray) -> Figure:
    """The panels as the browser shows them.

    Args:
        picture: (height, width, 3) in [0, 1].
    """
    height, width = picture.shape[:2]
    labelled = bool(frame.row_labels)
    side = 1.1 if labelled else 3.2
    lines = -(-len(frame.panels) // frame.across)
    figure, axes = new_figure(
        lines,
        frame.across,
        width=max(side * frame.across, 3.6) + 0.8 * labelled,
        height=side * height / width * lines + (0.9 if labelled else 1.0),
    )
    for ax, panel in zip(axes.flat, frame.panels, strict=True):
        _plot_panel(ax, panel, frame, picture)
    if labelled:
        for ax, label in zip(axes[:, 0], frame.row_labels, strict=True):
            ax.set_ylabel(label, fontsize="small", rotation=0, ha="right", va="center")
        for ax, label in zip(axes[0], frame.column_labels, strict=True):
            ax.set_title(label, fontsize="small")
    _bars(figure, axes, frame)
    return figure


def frame_png(frame: Frame, picture: np.ndarray) -> bytes:
    return figure_png(plot_frame(frame, picture))


def _plot_panel(ax: Axes, panel: Panel, frame: Frame, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    if panel.over:
        plot_overlay(picture, panel.values, ax=ax, vmax=panel.high, opacity=frame.opacity)
        ax.set_axis_on()
    else:
        ax.imshow(
            panel.values,
            cmap=COLOUR_MAPS[panel.signed],
            vmin=panel.low,
            vmax=panel.high,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
    if frame.patch is not None:
        rows, columns = panel.values.shape
        cell = width / columns, height / rows
        corner = frame.patch[1] * cell[0] - 0.5, frame.patch[0] * cell[1] - 0.5
        ax.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="black", linewidth=2.5))
        ax.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="white", linewidth=1.2))
    if not frame.row_labels:
        ax.set_title(panel.title, fontsize="medium", loc="left", wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _bars(figure: Figure, axes: np.ndarray, frame: Frame) -> None:
    """A bar under each panel with a unit; in the grid one for all."""
    for ax, panel in zip(axes.flat, frame.panels, strict=True):
        if panel.unit:
            low, high = frame.bar(panel)
            colours = ScalarMappable(Normalize(low, high), COLOUR_MAPS[panel.signed])
            where = {"ax": axes[-1], "aspect": 30} if frame.row_labels else {"ax": ax}
            bar = figure.colorbar(
                colours, **where, location="bottom", label=panel.unit, fraction=0.05, pad=0.03
            )
            ticks = (low, (low + high) / 2, high)
            bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])


def snapshot(model: Model | str, image: ImageSource, *, grid: bool = False, **view: Any) -> Figure:
    """What `explore` shows, as a figure: for papers, and for notebooks that are read, not run.

    Args:
        model, image, view: as for `explore`.
        grid: the blocks and heads instead of the map.
    """
    session, shown = Sources(model, image, Path()).start(view)
    frame = grid_frame(session, shown) if grid else main_frame(session, shown)
    return plot_frame(frame, session.picture())
