"""Pictures of a comparison of maps: dots with intervals, and curves with bands."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout.plots.figure import new_figure

# Told apart by all colour-blind eyes (Okabe & Ito), and by their lines on grey paper.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
CONTROL = "#777777"


def plot_intervals(summarised: pd.DataFrame, *, titles: dict[str, str] | None = None) -> Figure:
    """A panel for each measure: a dot for each map at its mean, with its 95 % interval.

    Args:
        summarised: columns map, measure, mean, low, high, as of `comparison.tables.summary` with
            the maps' names; maps stand in the order in which they come.
        titles: what is written above a measure's panel, such as "peak (higher is better)".
    """
    measures = summarised["measure"].unique().tolist()
    names = summarised["map"].unique().tolist()
    width, height = 2.6 + 2.2 * len(measures), 0.8 + 0.24 * len(names)
    figure, axes = new_figure(1, len(measures), width=width, height=height)
    for number, (measure, ax) in enumerate(zip(measures, axes[0], strict=True)):
        _dots(summarised[summarised["measure"] == measure], names, ax)
        ax.set_title((titles or {}).get(measure, measure), fontsize="small")
        ax.set_yticks(range(len(names)), names if number == 0 else [""] * len(names))
    return figure


def _dots(rows: pd.DataFrame, names: Sequence[str], ax: Axes) -> None:
    for row in rows.to_dict("records"):
        place = names.index(row["map"])
        control = row["map"].startswith("control")
        ax.plot((row["low"], row["high"]), (place, place), color=CONTROL if control else COLOURS[0])
        ax.plot(
            row["mean"],
            place,
            color=CONTROL if control else COLOURS[0],
            marker="s" if control else "o",
            markersize=4,
        )
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    ax.tick_params(labelsize="small")


def plot_curves(
    points: pd.DataFrame, maps: Sequence[str], *, across: str, up: str, ax: Axes | None = None
) -> Figure:
    """A line for each map through the means of a curve, with its 95 % interval as a band.

    Args:
        points: columns map, step, mean, low, high, as of `comparison.tables.curve` with names.
        maps: which of them, at most as many as there are colours.
        across, up: what stands at the axes.
        ax: to draw into; None makes a figure.
    """
    if not 0 < len(maps) <= len(COLOURS):
        raise ValueError(f"give one to {len(COLOURS)} maps, got {len(maps)}")
    if ax is None:
        ax = new_figure(1, 1, width=5.0, height=3.4)[1][0, 0]
    for name, colour, dashes in zip(maps, COLOURS, DASHES, strict=False):
        rows = points[points["map"] == name].sort_values("step")
        if rows.empty:
            raise ValueError(f"there is no map {name!r} in the points")
        ax.plot(rows["step"], rows["mean"], color=colour, linestyle=dashes, label=name)
        ax.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
    ax.set(xlabel=across, ylabel=up)
    ax.legend(fontsize="small", frameon=False)
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure
