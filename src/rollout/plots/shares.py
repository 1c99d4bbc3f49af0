"""Tables of shares in colour, each with its number written into it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout.errors import shown
from rollout.plots.figure import COLOUR_MAP, colour_bar, new_figure


def plot_share_table(table: pd.DataFrame, *, unit: str, title: str = "") -> Figure:
    """A table of shares in [0, 1]; its axes are named as its index and its columns are.

    Args:
        unit: what a share counts, for the colour bar.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a DataFrame of shares, got {shown(table)}")
    width, height = 1.3 * table.shape[1] + 2.5, 0.5 * table.shape[0] + 1.2
    figure, ((ax,),) = new_figure(1, 1, width=width, height=height)
    plot_share_grid(table.to_numpy(), table.index, table.columns, ax=ax, unit=unit)
    ax.set(xlabel=table.columns.name or "", ylabel=table.index.name or "", title=title)
    return figure


def plot_share_grid(
    shares: np.ndarray, rows: Sequence[object], columns: Sequence[object], *, ax: Axes, unit: str
) -> Axes:
    """A table of shares in colour, each with its number written into it.

    Args:
        shares: (rows, columns) in [0, 1].
        unit: what a share counts, for the colour bar.
    """
    ax.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "black" if share > 0.6 else "white"
        ax.text(column, row, f"{share:.0%}", color=colour, ha="center", va="center")
    ax.set_xticks(range(len(columns)), [str(column) for column in columns])
    ax.set_yticks(range(len(rows)), [str(row) for row in rows])
    colour_bar(ax, 1.0, unit)
    return ax
