"""What a discard ratio takes away, and what it is taken from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rollout.plots.figure import new_figure
from rollout.plots.sweeps import plot_curve, say


def plot_losses(losses: pd.DataFrame, row_sums: Mapping[str, np.ndarray]) -> Figure:
    """What is discarded of some matrices' sums, beside how much their rows hold.

    Args:
        losses: share of the sum that each ratio discards: a column per kind of matrix, indexed by
            ratio.
        row_sums: the same kinds to the sums of all their rows, in any order.
    """
    figure, ((left, right),) = new_figure(1, 2, width=10, height=3.2)
    losses.plot(ax=left, marker="o", ms=4, xlabel="discard ratio")
    left.set(ylabel="share of the sum discarded", ylim=(0, 1))
    for name, sums in row_sums.items():
        right.plot(np.sort(np.ravel(sums))[::-1], label=name)
    right.axhline(1, color="0.6", linestyle="--", label="skip connection")
    right.set(xlabel="rows of all blocks, largest first", ylabel="sum of the row")
    right.set(yscale="log", ylim=(1e-6, 5))
    right.legend(frameon=False)
    return figure


def plot_contrast(table: pd.DataFrame) -> Figure:
    """Mass on the target against the ratio, and of the control that has contrast alone (dotted).

    Args:
        table: of `sweep_scenes`; a panel for each method in it.
    """
    methods = table["method"].unique()
    figure, (axes,) = new_figure(1, len(methods), width=4.5 * len(methods), height=3.2)
    for ax, method in zip(axes, methods, strict=True):
        cells = table[table["method"] == method]
        plot_curve(cells, "target_mass", control="contrast_mass", ax=ax)
        ax.set_title(say("method", method))
    axes[0].legend(frameon=False, fontsize="small")
    return figure
