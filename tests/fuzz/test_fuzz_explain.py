"""Explanations, sweeps and records of a small network, asked for with hostile arguments."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers import left_as_it_was, small_vit

from rollout import (
    Model,
    VITAttentionGradRollout,
    VITAttentionRollout,
    audit,
    describe,
    explain,
    record_attention,
    record_model,
    sweep,
    wrap_model,
)

LABELS = ["cat", "dog", "bird, fowl", "a\nb", "$x^", "<b>", "tabby cat"]
IMAGE = ("image", "tensor", "picture", "array", "row", "file", "input")
WORDS = {
    "image": IMAGE,
    "images": IMAGE,
    "input_tensor": IMAGE,
    "model": ("model", "network"),
    "network": ("network", "model"),
    "target": ("target", "class", "label"),
    "targets": ("target", "class", "label"),
    "category_index": ("category", "target", "class", "label"),
    "score": ("score",),
    "query": ("patch", "query"),
    "path": ("path", "name", "file", "directory", "format", "extension"),
}


@pytest.fixture
def model() -> Iterator[Model]:
    network = small_vit(num_heads=3)
    with left_as_it_was(network):
        yield wrap_model(network, labels=LABELS)


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 48)


def knobs() -> dict[str, Any]:
    return {"start_block": 1, "end_block": 3, "head": 1, "query": (1, 2), "legacy": False}


def test_explain(fuzz, model):
    def good() -> dict[str, Any]:
        return {
            "model": model,
            "image": images(),
            "method": "gradient_rollout",
            "target": [1, "dog"],
            "score": None,
            "head_fusion": "max",
            "discard_ratio": 0.5,
            "batch_size": 1,
            **knobs(),
        }

    def check(found: Any) -> None:
        assert found.map.dim() == 3 and found.map.isfinite().all() and (found.map >= 0).all()

    fuzz("explain", 400).swap(explain, good, words=WORDS, check=check)


@pytest.mark.parametrize("method", ["attention_rollout", "attention_flow", "raw_attention"])
def test_explain_what_it_looked_at_whatever_is_asked(fuzz, model, method):
    good = lambda: {"image": images(1), "target": "dog", **knobs()}  # noqa: E731
    fuzz("explain", 40).swap(
        lambda **given: explain(model, method=method, **given), good, words=WORDS
    )


def test_scores(fuzz, model):
    area = fuzz("explain", 60)
    image = images()
    area.swap(
        lambda score: explain(model, image, score=lambda output: score),
        lambda: {"score": torch.rand(2, requires_grad=True)},
    )


def test_what_an_explanation_is_asked(fuzz, model):
    area = fuzz("explain", 60)
    found = explain(model, images(), target=["dog", "cat"])
    words = {"index": ("index", "image"), **WORDS}
    for call in (found.title, found.dominated, found.note, found.speaks_for_nothing):
        area.swap(call, lambda: {"index": 1}, words=words)
    area.swap(found.saliency_map, lambda: {"size": (20, 30)}, words=words)
    area.swap(found.mask, lambda: {"threshold": 0.5})
    area.swap(found.boxes, lambda: {"threshold": 0.5})
    area.swap(found.plot, lambda: {"scale": "auto"}, cases=area.cases // 6)
    area.swap(
        found.save, lambda: {"path": "a.png", "scale": "max"}, words=WORDS, cases=area.cases // 2
    )
    area.swap(found.save_overlay, lambda: {"path": "a.png", "index": 0}, words={**words, **WORDS})


def test_sweep(fuzz, model):
    def good() -> dict[str, Any]:
        return {
            "model": model,
            "image": images(1),
            "methods": ["attention_rollout", "gradient_rollout"],
            "head_fusions": ["mean", "min"],
            "discard_ratios": [0.0, 0.5],
            "targets": ["dog", 0],
            "start_blocks": [0, 1],
            "coverage": {"dog": torch.rand(4, 6)},
            "end_block": 3,
            "head": 1,
            "query": (1, 2),
            "legacy": False,
        }

    words = {
        **WORDS,
        "methods": ("method",),
        "head_fusions": ("head_fusion",),
        "discard_ratios": ("discard_ratio",),
        "start_blocks": ("start_block",),
        "end_block": ("end_block", "start_block"),
    }
    fuzz("explain", 250).swap(sweep, good, words=words)


def test_recordings(fuzz, model):
    area = fuzz("explain", 60)
    good = lambda: {"model": model, "image": images(), "score": None}  # noqa: E731
    area.swap(record_model, good, words=WORDS)
    recording = record_model(model, images())
    area.swap(
        recording.relevance, lambda: {"method": "gradient_rollout", "target": [1, 2]}, words=WORDS
    )
    area.swap(recording.backward, lambda: {"target": ["dog", 2]}, words=WORDS)
    area.swap(recording.target_indices, lambda: {"target": ["dog", 2]}, words=WORDS)


def test_records_of_attention(fuzz, model):
    area = fuzz("explain", 60)
    good = lambda: {"network": model.network, "images": images()}  # noqa: E731
    area.swap(record_attention, good, words=WORDS)
    record = record_attention(model.network, images())
    area.swap(record.gradients, lambda: {"target": [0, 1]}, words=WORDS)
    area.swap(record.backward, lambda: {"target": torch.tensor([0, 1])}, words=WORDS)
    leaner = record_attention(model.network, images(), gradients=False)
    area.attempt(lambda: leaner.gradients(1), "without gradients", ["gradients"])
    heads = record.attentions.one_head
    area.swap(heads, lambda: {"head": 1})


@pytest.mark.parametrize("legacy", [False, True])
def test_the_drop_in(fuzz, legacy):
    area = fuzz("explain", 60)
    network = small_vit(img_size=(32, 32))
    good = lambda: {  # noqa: E731
        "model": network,
        "attention_layer_name": "attn_drop",
        "head_fusion": "mean",
        "discard_ratio": 0.9,
        "input_tensor": torch.randn(1, 3, 32, 32),
    }

    def check(mask: np.ndarray) -> None:
        assert mask.shape == (4, 4) and np.isfinite(mask).all() and mask.max() in (0, 1)

    def attention(input_tensor: Any, **given: Any) -> np.ndarray:
        return VITAttentionRollout(**given, legacy=legacy)(input_tensor)

    def gradient(input_tensor: Any, category_index: Any, **given: Any) -> np.ndarray:
        return VITAttentionGradRollout(**given, legacy=legacy)(input_tensor, category_index)

    with left_as_it_was(network):
        area.swap(attention, good, words=WORDS)
        area.swap(gradient, lambda: {**good(), "category_index": 2}, words=WORDS)
        area.swap(
            lambda x: VITAttentionRollout(network, legacy=legacy)(x),
            lambda: {"x": torch.randn(1, 3, 32, 32)},
            words={"x": IMAGE},
            check=check,
        )


def test_audit_and_describe(fuzz, model):
    area = fuzz("explain", 60)
    good = lambda: {"model": model, "image": images()}  # noqa: E731
    area.swap(audit, good, words=WORDS)
    area.swap(describe, good, words=WORDS, cases=area.cases // 2)
    found = audit(model, images())
    area.swap(found.dominated, lambda: {"index": 1}, words={"index": ("index", "image")})


def test_odd_but_legal_arguments_give_what_plain_ones_do(model):
    image = images()
    plain = explain(model, image, target=[1, 2], head=1, start_block=1, end_block=3, query=(1, 2))
    whole = np.int64
    for odd in (
        {"target": np.array([1, 2])},
        {"target": torch.tensor([1, 2])},
        {"target": (whole(1), "2")},
        {"head": whole(1), "start_block": np.uint8(1), "end_block": whole(3)},
        {"query": [whole(1), 2]},
        {"discard_ratio": np.float32(0), "batch_size": whole(1)},
    ):
        given: dict[str, Any] = {
            "target": [1, 2], "head": 1, "start_block": 1, "end_block": 3, "query": (1, 2), **odd
        }  # fmt: skip
        torch.testing.assert_close(explain(model, image, **given).map, plain.map)


def test_nothing_was_written_outside(fuzz, model, tmp_path):
    """The paths of all texts: what is saved lies where it was asked for, or nowhere."""
    area = fuzz("explain", 30)
    found = explain(model, images(1))
    area.swap(found.save_overlay, lambda: {"path": "a.png"}, words=WORDS)
    above = {entry.name for entry in os.scandir(tmp_path)}
    assert above <= {"deep", "home", "up", "up.png"}  # that is what "../../up" asks for
