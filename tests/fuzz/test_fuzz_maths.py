"""Mathematics and metrics, given hostile tensors, settings and sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_attention
from torch import Tensor

from rollout import attention_flow, attention_rollout, gradient_rollout
from rollout.maths import boxes, dominance, fusion, metrics, placement, scales
from rollout.maths.token_layout import TokenLayout

READOUT = ("readout",)
WORDS = {  # a fault of shape may be seen in either of the two that must fit
    "attentions": ("attention", "blocks", "gradients", "readout"),
    "gradients": ("gradient",),
    "readout": READOUT,
    "saliency_map": ("map",),
    "other": ("map", "other"),
    "coverage": ("coverage",),
    "rival": ("coverage", "rival"),
    "target": ("coverage", "target"),
}


def distributions(found: Tensor) -> None:
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found.sum(-1)), rtol=0, atol=1e-3)


def settings() -> dict[str, Any]:
    readout = torch.full((5,), 0.2)
    return {"head_fusion": "mean", "discard_ratio": 0.5, "start_block": 1, "readout": readout}


def attentions() -> list[Tensor]:
    return [random_attention(2, 3, 5) for _ in range(3)]


def test_attention_rollout(fuzz):
    area = fuzz("maths", 200)
    good = lambda: {"attentions": attentions(), **settings()}  # noqa: E731
    area.swap(attention_rollout, good, words=WORDS, check=distributions)


def test_gradient_rollout(fuzz):
    gradients = lambda: [torch.randn(2, 3, 5, 5) for _ in range(3)]  # noqa: E731
    good = lambda: {"attentions": attentions(), "gradients": gradients(), **settings()}  # noqa: E731
    fuzz("maths", 200).swap(gradient_rollout, good, words=WORDS, check=distributions)


def test_attention_flow(fuzz):
    def check(flow: Any) -> None:
        assert flow.values.isfinite().all() and (flow.routed <= flow.values + 1e-6).all()
        assert (0 <= flow.values).all() and (flow.values <= 1 + 1e-6).all()

    area = fuzz("maths", 100)
    good = lambda: {"attentions": attentions(), **settings()}  # noqa: E731
    area.swap(attention_flow, good, words=WORDS, check=check)
    flow = attention_flow(attentions())
    area.swap(flow.describe_cut, lambda: {"token": 1, "image": 0})


def test_the_steps_of_one_block(fuzz):
    area = fuzz("maths", 80)
    words = {"attention": ("attention",), "fused": ("fused", "attention")}
    area.swap(
        fusion.fuse_heads,
        lambda: {"attention": random_attention(), "head_fusion": "max"},
        words=words,
    )
    matrix = random_attention(2, 1, 6)[:, 0]
    area.swap(fusion.transition, lambda: {"fused": matrix}, words=words)
    area.swap(fusion.discard_lowest, lambda: {"fused": matrix, "discard_ratio": 0.5}, words=words)


def test_token_layouts(fuzz):
    area = fuzz("maths", 80)
    area.swap(
        TokenLayout, lambda: {"grid_size": (2, 3), "num_prefix_tokens": 1, "pooling": "token"}
    )
    layout = TokenLayout((2, 3))
    area.swap(layout.token, lambda: {"patch": (1, 2)})
    area.swap(layout.to_grid, lambda: {"relevance": torch.rand(2, 7)})


def maps() -> Tensor:
    return torch.rand(2, 3, 5)


METRICS: dict[Callable[..., Any], Callable[[], dict[str, Any]]] = {
    placement.patch_coverage: lambda: {"mask": torch.ones(2, 30, 50).bool(), "grid_size": (3, 5)},
    metrics.peak_on_object: lambda: {"saliency_map": maps(), "coverage": maps(), "threshold": 0.3},
    metrics.average_precision: lambda: {
        "saliency_map": maps(),
        "coverage": maps(),
        "threshold": 0.3,
    },
    metrics.ranking_precision: lambda: {
        "scores": torch.rand(6),
        "relevant": torch.tensor([True, False, True, True, False, False]),
    },
    metrics.mean_average_precision: lambda: {
        "scores": torch.rand(4, 3),
        "present": torch.rand(4, 3) > 0.3,
    },
    metrics.mass_on_object: lambda: {"saliency_map": maps(), "coverage": maps()},
    metrics.target_share: lambda: {"saliency_map": maps(), "target": maps(), "rival": maps()},
    metrics.relative_entropy: lambda: {"saliency_map": maps()},
    metrics.rank_correlation: lambda: {"saliency_map": maps(), "other": maps()},
    metrics.mean_interval: lambda: {"values": np.arange(4.0), "level": 0.9},
    metrics.match_entropy: lambda: {"saliency_map": maps(), "entropy": torch.tensor([0.5, 0.7])},
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.__name__)
def test_metrics(fuzz, metric):
    fuzz("metrics", 60).swap(metric, METRICS[metric], words=WORDS)


def test_boxes(fuzz):
    area = fuzz("metrics", 60)
    outstanding = lambda: {"saliency_map": maps(), "threshold": 0.5}  # noqa: E731
    area.swap(boxes.outstanding, outstanding, words=WORDS)
    area.swap(boxes.find_boxes, lambda: {**outstanding(), "size": (30, 50)}, words=WORDS)
    area.swap(boxes.draw_mask, lambda: {"mask": maps() > 0.5, "size": (30, 50)}, words=WORDS)


def test_dominance(fuzz):
    area = fuzz("metrics", 60)
    values = lambda: maps()[0].numpy()  # noqa: E731
    area.swap(dominance.find_dominance, lambda: {"saliency_map": values()}, words=WORDS)
    area.swap(scales.scale_top, lambda: {"saliency_map": values(), "scale": "auto"}, words=WORDS)
