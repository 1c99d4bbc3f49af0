"""Whole figures of attention flow: toy networks, one image beside rollout, many scenes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from rollout.maths.flow import CUTS
from rollout.maths.metrics import rank_correlation
from rollout.plots.figure import new_figure
from rollout.plots.flow import (
    PATH_COLOUR,
    plot_cut_map,
    plot_cut_shares,
    plot_network,
    plot_points,
)


def plot_networks(
    transitions: Tensor, panels: Mapping[str, Mapping[str, Any]], *, tokens: Sequence[str]
) -> Figure:
    """One network several times, each with a path through it or a cut.

    Args:
        transitions, tokens: as for `plot_network`.
        panels: title to path, or to sink and source_side.
    """
    width, height = max(2.8 * len(panels), 10), 1.2 * len(transitions) + 1.2
    figure, (axes,) = new_figure(1, len(panels), width=width, height=height)
    for ax, (title, options) in zip(axes, panels.items(), strict=True):
        plot_network(transitions, ax=ax, tokens=tokens, title=title, **options)
    return figure


def plot_flow_against(
    others: Mapping[str, np.ndarray], flow: np.ndarray, cut: np.ndarray
) -> Figure:
    """The flow of each patch against other values of it, and where on the image which cut binds.

    Args:
        others: name, with its unit, to values; the rank correlation goes into the title.
        flow, cut: flow, and index into CUTS, of each patch; all are (rows, columns).
    """
    figure, (axes,) = new_figure(1, len(others) + 1, width=4.7 * (len(others) + 1), height=4.3)
    for ax, (label, other) in zip(axes, others.items(), strict=False):
        pair = (torch.from_numpy(values)[None] for values in (other, flow))
        title = f"rank correlation {rank_correlation(*pair).item():.2f}"
        plot_points(other, flow, cut, ax=ax, label=label, title=title)
    plot_cut_map(cut, ax=axes[-1], title="where the cut binds")
    return figure


def plot_flow_scenes(table: pd.DataFrame, num_blocks: int) -> Figure:
    """What `flow_scenes` found: where capacity is severed, what flow is like, which cuts bind.

    Args:
        table: of `flow_scenes`, with start_block 0 among the starts.
    """
    columns = ["with rollout", "with column sums", *CUTS]
    means = table.groupby("start_block")[columns].mean()
    bars = [f"{start + 1} to {num_blocks}" for start in means.index]
    severed = np.sum(list(table.loc[table["start_block"] == 0, "severed"]), axis=0)
    figure, ((left, middle, right),) = new_figure(1, 3, width=14, height=3.6)
    places = [*map(str, range(1, num_blocks + 1)), "readout"]
    left.bar(places, severed / severed.sum(), color=PATH_COLOUR)
    left.set(
        xlabel="block", ylabel="share of all severed capacity", title=f"all {num_blocks} blocks"
    )
    for column, style in (("with rollout", "o-"), ("with column sums", "s--")):
        middle.plot(bars, means[column], style, color=PATH_COLOUR, label=column)
    lowest = min(0, means["with rollout"].min()) - 0.05
    middle.set(xlabel="blocks that count", ylabel="rank correlation of flow", ylim=(lowest, 1.05))
    middle.legend(frameon=False)
    shares = means[list(CUTS)].to_numpy()
    plot_cut_shares(shares, bars, ax=right, label="blocks that count")
    return figure
