"""Whole figures: what stands in each panel is what was given."""

import numpy as np
import pandas as pd
import pytest
import torch

from rollout.maths.flow import CUTS
from rollout.plots.discard import plot_contrast, plot_losses
from rollout.plots.flow_figures import plot_flow_against, plot_flow_scenes, plot_networks
from rollout.plots.maps import plot_overlays
from rollout.plots.shares import plot_share_table


def shown(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def titles(figure):
    return [ax.get_title() for ax in shown(figure)]


def test_a_table_of_shares_is_named_as_the_table_is():
    table = pd.DataFrame([[0.25, 0.5, 1.0]], pd.Index([3], name="block"))
    figure = plot_share_table(table.rename_axis(columns="head"), unit="share", title="mass")
    (ax,) = shown(figure)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("head", "block", "mass")
    assert [text.get_text() for text in ax.texts] == ["25%", "50%", "100%"]


def test_losses_stand_beside_the_rows_largest_first():
    losses = pd.DataFrame({"attention": [0.0, 0.4], "evidence": [0.0, 0.1]}, [0.0, 0.9])
    sums = {"attention": torch.ones(2, 3), "evidence": torch.tensor([[0.1, 0.3, 0.2]])}
    left, right = shown(plot_losses(losses, sums))
    assert [line.get_ydata().tolist() for line in left.lines] == [[0.0, 0.4], [0.0, 0.1]]
    assert right.lines[1].get_ydata() == pytest.approx([0.3, 0.2, 0.1])


def test_contrast_has_a_panel_for_each_method_and_a_dotted_control():
    methods = ("attention_rollout", "gradient_rollout")
    rows = [(method, ratio) for method in methods for ratio in (0.0, 0.9)]
    table = pd.DataFrame(rows, columns=["method", "discard_ratio"])
    table = table.assign(head_fusion="max", target_mass=0.5, contrast_mass=0.25, area=0.1)
    figure = plot_contrast(table)
    assert titles(figure) == ["attention rollout", "gradient rollout"]
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [line.get_ydata().tolist() for line in dotted] == [[0.25, 0.25]]


def test_networks_have_a_panel_for_each_path_or_cut():
    transitions = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]] * 2)
    panels = {"one way": {"path": [0, 0, 2]}, "another": {"path": [0, 2, 2]}, "marked": {"sink": 1}}
    figure = plot_networks(transitions, panels, tokens=["c", "1", "2"])
    assert titles(figure) == list(panels)


def test_flow_against_others_says_the_rank_correlation():
    flow = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    cut = np.array([[0, 0, 1], [1, 2, 2]])
    figure = plot_flow_against({"same": 2 * flow, "opposite": 1 - flow}, flow, cut)
    assert titles(figure) == [
        "rank correlation 1.00",
        "rank correlation -1.00",
        "where the cut binds",
    ]


def test_scenes_are_summed_up_by_block():
    cuts = dict(zip(CUTS, (0.5, 0.25, 0.25), strict=True))
    rows = [
        {
            "scene": scene,
            "start_block": start,
            "with rollout": 0.5,
            "with column sums": 0.75,
            **cuts,
        }
        | {"severed": np.array([3.0, 0.0, 1.0][start:])}
        for scene in "ab"
        for start in (0, 1)
    ]
    left, middle, right = shown(plot_flow_scenes(pd.DataFrame(rows), 2))
    assert [bar.get_height() for bar in left.patches] == [0.75, 0.0, 0.25]
    assert [tick.get_text() for tick in middle.get_xticklabels()] == ["1 to 2", "2 to 2"]
    assert len(right.patches) == 2 * len(CUTS)


def test_overlays_have_their_own_scale_and_unit():
    picture = np.zeros((8, 12, 3))
    panels = {f"map {top}": (np.full((2, 3), float(top)), f"unit {top}") for top in (1, 2, 3, 4)}
    figure = plot_overlays(picture, panels, columns=3)
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert [(bar.get_ylim()[1], bar.get_ylabel()) for bar in bars] == [
        (float(top), f"unit {top}") for top in (1, 2, 3, 4)
    ]
    assert [title for title in titles(figure) if title] == list(panels)
