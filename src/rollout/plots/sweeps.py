"""Pictures of sweeps: grids of maps, curves over the discard ratio or first block, and bars."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout.maths.scales import Scale, log_bottom, scale_top, shared_top
from rollout.maths.token_layout import Extent
from rollout.plots.figure import colour_bar, new_figure, own_scales_bar
from rollout.plots.maps import plot_overlay, plot_picture, say_scale
from rollout.settings import METHODS

PUBLISHED_RATIO = 0.9  # the default of vit-explain
Axis = Literal["discard_ratio", "start_block"]  # along which curves are drawn


# The columns of `sweep` that are measures, with what stands at their axis.
MEASURES = {
    "target_mass": "share of mass on target",
    "peak_on_target": "peak on the target",
    "entropy": "entropy / log(patches)",
    "rank_correlation": "rank correlation with ratio 0",
}


# Told apart by all colour-blind eyes (Okabe & Ito), and by their markers on grey paper.
LINES = {"mean": ("#0072b2", "o"), "max": ("#d55e00", "^"), "min": ("#009e73", "v")}


WORDS = {"discard_ratio": "discard {:g}", "head_fusion": "{}", "label": "{}", "scene": "{}"}


def plot_sweep_grid(
    pictures: np.ndarray | Mapping[Any, np.ndarray],
    cells: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    unit: str | None = None,
    shared: Literal["figure", "row", "panel"] = "row",
    size: float = 1.75,
    scale: Scale = "auto",
    extent: Extent | None = None,
) -> Figure:
    """Maps in rows and columns of what two columns of a sweep say.

    A single row of more than WIDEST panels is broken into lines, so that a patch can be seen.

    Args:
        pictures: the image (height, width, 3) in [0, 1]; or one for each row, shown before it.
        cells: rows of `sweep`, one for each panel.
        rows, columns: names of columns of `cells`, such as "head_fusion" and "discard_ratio".
        unit: what a map's values mean; by default what the cells' method says.
        shared: what has one scale, with a colour bar at the end of each row; "panel" scales each
            map by itself, and writes over it what is brightest.
        size: of a panel, in inches.
        scale: where scales end, as for `plot_overlay`.
        extent: the pixels that the maps cover, as `Explanation.extent`.
    """
    names, across = cells[rows].unique().tolist(), cells[columns].unique().tolist()
    unit = METHODS[cells["method"].iloc[0]].unit if unit is None else unit
    own = isinstance(pictures, Mapping)
    beside = pictures if isinstance(pictures, Mapping) else dict.fromkeys(names, pictures)
    lines = _lines(len(names), len(across) + own)
    width, height = size * lines[1] + 1.2, (size + 0.1 + 0.2 * (lines[0] > len(names))) * lines[0]
    figure, axes = new_figure(*lines, width=width, height=height)
    by_row = axes.reshape(len(names), -1)
    top = shared_top(cells["relevance"], scale) if shared == "figure" else None
    clipped = False
    for name, panels in zip(names, by_row, strict=True):
        row = cells[cells[rows] == name].set_index(columns)["relevance"][across]
        end = None if shared == "panel" else top or shared_top(row, scale)
        alike = cells["relevance"] if shared == "figure" else row
        low = log_bottom(alike, end) if end and scale == "log" else None
        if own:
            plot_picture(beside[name], ax=panels[0])
        for ax, (value, saliency_map) in zip(panels[own:], row.items(), strict=False):
            high = scale_top(saliency_map, scale) if end is None else end
            look: dict[str, Any] = {"vmax": high, "vmin": low, "scale": scale, "extent": extent}
            plot_overlay(beside[name], saliency_map, ax=ax, **look)
            clipped = clipped or bool((saliency_map > high).any())
            words = [say(columns, value)] if name == names[0] else []
            words += [say_scale(saliency_map, high)] if shared == "panel" else []
            ax.set_title("\n".join(words), fontsize="small" if shared == "panel" else "medium")
        for ax in panels[own + len(row) :]:
            ax.set_axis_off()
        if end is not None:
            over, shape = any((one > end).any() for one in row), 14 * lines[0] // len(names)
            place: dict[str, Any] = {"aspect": shape, "pad": 0.01, "above": over}
            place |= {"low": low or 0.0, "logarithmic": low is not None}
            colour_bar(panels, end, fill(unit, 20), small=True, **place)
        panels[0].set_axis_on()
        panels[0].set(xticks=[], yticks=[], ylabel=say(rows, name))
        panels[0].spines[:].set_visible(False)
    if shared == "panel":
        place = {"small": True, "aspect": 14 * lines[0], "pad": 0.01}
        place |= {"logarithmic": scale == "log"}
        own_scales_bar(axes, fill(unit, 28), above=clipped, **place)
    return figure


WIDEST = 5  # panels


def _lines(rows: int, panels: int) -> tuple[int, int]:
    """Lines and panels in each: a row alone is broken where it is too long."""
    if rows > 1 or panels <= WIDEST:
        return rows, panels
    lines = -(-panels // WIDEST)
    return lines, -(-panels // lines)


def say(column: str, value: Any) -> str:
    """A value of a column for the eye, such as "discard 0.9"."""
    if column == "method":
        return METHODS[value].title
    if column == "start_block":
        return f"from block {value + 1}" if value else "all blocks"
    return WORDS.get(column, f"{column} {{}}").format(value)


def plot_curves(
    table: pd.DataFrame,
    *,
    measures: Sequence[str],
    lines: str = "head_fusion",
    over: Axis = "discard_ratio",
) -> Figure:
    """Measures against the discard ratio, means over all scenes and targets: a row per method.

    Args:
        table: of `sweep` or `sweep_scenes`.
        measures: some of MEASURES.
        lines: the column whose values are drawn as lines.
        over: the column along the axis, "discard_ratio" or "start_block".
    """
    methods = table["method"].unique()
    width, height = 3.4 * len(measures), 2.9 * len(methods)
    figure, axes = new_figure(len(methods), len(measures), width=width, height=height)
    for row, method in zip(axes, methods, strict=True):
        for ax, measure in zip(row, measures, strict=True):
            plot_curve(table[table["method"] == method], measure, lines=lines, over=over, ax=ax)
            ax.set_title(METHODS[method].title, fontsize="medium")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    axes[0, 0].legend(frameon=False, fontsize="small")
    return figure


def plot_curve(
    table: pd.DataFrame,
    measure: str,
    *,
    lines: str = "head_fusion",
    control: str | None = None,
    over: Axis = "discard_ratio",
    ax: Axes,
) -> Axes:
    """One measure against the discard ratio, with the published ratio marked, or the first block.

    Args:
        control: another column, drawn dotted beside the measure.
        over: the column along the axis, "discard_ratio" or "start_block".
    """
    place = _place if over == "discard_ratio" else np.asarray
    ax.set_ylim(0, 1.04)
    for name, cells in table.groupby(lines, sort=False):
        means = cells.groupby(over)[measure].mean()
        colour, marker = LINES.get(str(name), (None, "."))
        ax.plot(place(means.index), means, marker=marker, color=colour, ms=4, label=str(name))
        if control is not None:
            means = cells.groupby(over)[control].mean()
            ax.plot(place(means.index), means, ":", color=colour)
        if means.min() < 0:
            ax.set_ylim(bottom=-1.04)
    if measure == "target_mass" and "area" in table:
        ax.axhline(table["area"].mean(), color="0.4", linestyle="-.", label="a blind map")
    ax.set(ylabel=MEASURES[measure])
    if over == "start_block":
        ax.set_xlabel("blocks left out at the start (start_block)")
        ax.set_xticks(sorted(table[over].unique()))
    else:
        ax.axvline(_place(PUBLISHED_RATIO), color="0.6", linestyle="--", zorder=0)
        ax.set_xlabel("discard ratio (dashed: published)")
        ticks = _apart(sorted(table[over].unique()))
        ax.set_xticks(_place(ticks), [f"{ratio:g}" for ratio in ticks])
    ax.grid(alpha=0.25)
    return ax


def plot_bars(table: pd.DataFrame, *, measures: Sequence[str]) -> Figure:
    """Measures of each head fusion, means over all scenes and targets: bars per method and ratio.

    Args:
        table, measures: as in `plot_curves`.
    """
    keys = ["method", "discard_ratio", "head_fusion"]
    means = table.groupby(keys, sort=False)[list(measures)].mean()
    figure, (axes,) = new_figure(1, len(measures), width=4.3 * len(measures), height=3.4)
    for ax, measure in zip(axes, measures, strict=True):
        bars = means[measure].unstack("head_fusion")
        colours = [LINES[name][0] for name in bars]
        names = [
            (say("method", m).replace(" ", "\n"), say("discard_ratio", r)) for m, r in bars.index
        ]
        bars.index = [",\n".join(name) for name in names]
        bars.plot.bar(ax=ax, color=colours, rot=0, legend=False, fontsize="small")
        ax.set(ylim=(0, 1.04), ylabel=MEASURES[measure])
        if measure == "target_mass" and "area" in table:
            ax.axhline(table["area"].mean(), color="0.4", linestyle="-.", label="a blind map")
    handles = axes[0].get_legend_handles_labels()
    axes[-1].legend(*handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _place(ratio: Any) -> Any:
    """Where a ratio stands on the axis: by what is kept, as the last tenth matters most."""
    return -np.log10(1 - np.asarray(ratio, dtype=float))


def _apart(ratios: Sequence[float]) -> list[float]:
    """Those of the ratios, in order, whose labels have room beside each other."""
    room, chosen = 0.11 * (_place(ratios[-1]) - _place(ratios[0])), [ratios[0]]
    for ratio in ratios:
        if _place(ratio) - _place(chosen[-1]) >= room:
            chosen.append(ratio)
    return chosen
