"""Pictures of flow: what is drawn is what the cut and the path say."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from rollout.maths.flow import CUTS, attention_flow
from rollout.maths.fusion import transition
from rollout.plots.figure import new_figure
from rollout.plots.flow import plot_cut_map, plot_cut_shares, plot_network, plot_points
from rollout.plots.shares import plot_share_grid


def random_attention(blocks, tokens):
    scores = torch.randn(blocks, 1, 2, tokens, tokens, generator=torch.Generator().manual_seed(0))
    return list((3 * scores).softmax(dim=-1))


def new_axes():
    return new_figure(1, 1, width=4, height=3)[1][0, 0]


def written(ax):
    return [text.get_text() for text in ax.texts]


def test_a_network_writes_the_capacities_of_its_path():
    transitions = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]] * 2)
    ax = plot_network(transitions, ax=new_axes(), path=[0, 0, 2], tokens=["c", "1", "2"])
    assert sorted(written(ax)) == sorted(["0.5", "0.25"] + ["c", "1", "2"] * 3)
    assert len(ax.lines) == int((transitions > 0).sum())


def test_a_network_writes_the_capacities_that_a_cut_severs():
    attentions = random_attention(blocks=2, tokens=4)
    flow = attention_flow(attentions)
    transitions = torch.cat([transition(block.mean(dim=1)) for block in attentions])
    side = flow.source_side[0, 3]
    ax = plot_network(transitions, ax=new_axes(), sink=3, source_side=side)
    severed = side[1:, :, None] & ~side[:-1, None, :]
    capacities = [text for text in written(ax) if not text.isdigit()]
    assert len(capacities) == int(severed.sum())
    total = sum(float(text) for text in capacities)
    np.testing.assert_allclose(total, flow.values[0, 3], rtol=0.02)  # two digits are written


def test_a_map_of_cuts_counts_them():
    cut = np.array([[0, 0, 1], [2, 0, 1]])
    legend = plot_cut_map(cut, ax=new_axes()).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "input: 3",
        "between: 2",
        "readout: 1",
    ]


def test_points_of_every_cut_are_drawn():
    across, cut = np.linspace(0, 1, 6), np.array([0, 0, 1, 1, 1, 2])
    ax = plot_points(across, 1 - across, cut, ax=new_axes(), label="rollout")
    assert [len(points.get_offsets()) for points in ax.collections] == [2, 3, 1]


def test_bars_reach_one_and_grids_say_their_numbers():
    bars = plot_cut_shares(np.array([[0.5, 0.3, 0.2]]), ["all"], ax=new_axes(), label="blocks")
    assert len(bars.patches) == len(CUTS)
    grid = plot_share_grid(np.array([[0.25, 1.0]]), ["x"], [1, 2], ax=new_axes(), unit="share")
    assert written(grid) == ["25%", "100%"]


def test_no_figure_stays_open():
    plot_cut_map(np.zeros((2, 3), dtype=int), ax=new_axes())
    assert plt.get_fignums() == []
