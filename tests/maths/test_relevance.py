"""Methods on attention and its gradient: slow versions in numpy, one image at a time, and laws."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import random_attention
from torch.testing import assert_close

from rollout.maths.relevance import (
    agcam,
    attention_gradcam,
    first_order,
    generic_relevance,
    legrad,
)
from rollout.maths.rollout import gradient_rollout

BATCH, HEADS, TOKENS, BLOCKS = 2, 3, 6, 4
REDUCE = {"mean": np.mean, "max": np.max, "min": np.min}


def record(seed=0, dtype=torch.float64):
    """Scores, attentions and gradients of each block."""
    torch.manual_seed(seed)
    shape = BLOCKS, BATCH, HEADS, TOKENS, TOKENS
    scores = 2 * torch.randn(shape, dtype=dtype)
    return list(scores), list(scores.softmax(-1)), list(torch.randn(shape, dtype=dtype))


def readouts():
    """One token; some; another mixture for each image."""
    torch.manual_seed(1)
    mixtures = torch.rand(BATCH, TOKENS, dtype=torch.float64)
    some = torch.tensor([0.5, 0.5, 0, 0, 0, 0], dtype=torch.float64)
    return [torch.eye(TOKENS, dtype=torch.float64)[0], some, mixtures / mixtures.sum(-1, True)]


def by_hand(entries, together, head_fusion, ratio):
    """(blocks, heads, query, key) of one image -> what `together` makes of the fused matrices."""
    blocks = []
    for block in entries:
        fused = REDUCE[head_fusion](block, axis=0).clip(min=0)
        lowest = np.argsort(fused.ravel(), kind="stable")[: int(ratio * fused.size)]
        fused.ravel()[lowest[lowest != 0]] = 0
        blocks.append(fused)
    return together(blocks)


def generic_by_hand(readout, blocks):
    relevance = np.eye(TOKENS)
    for fused in blocks:
        relevance = relevance + fused @ relevance
    return readout @ relevance


def summed(readout, blocks):
    return readout @ sum(blocks)


def last(readout, blocks):
    return readout @ blocks[-1]


def averaged(readout, blocks):
    return np.mean([fused.mean(axis=0) for fused in blocks], axis=0)


def head_weights(attention, gradient):
    weighted = np.empty_like(attention)
    for block, head, query in np.ndindex(weighted.shape[:3]):
        weight = np.mean(gradient[block, head, query, 2:])
        weighted[block, head, query] = weight * attention[block, head, query]
    return weighted


# method, what a head is asked for, how blocks are put together
METHODS = {
    "generic": (generic_relevance, lambda s, a, g: (a * g).clip(0), generic_by_hand),
    "first order": (first_order, lambda s, a, g: a * g, summed),
    "legrad": (legrad, lambda s, a, g: g.clip(0), averaged),
    "gradcam": (
        partial(attention_gradcam, num_prefix_tokens=2),
        lambda s, a, g: head_weights(a, g),
        last,
    ),
    "agcam": (agcam, lambda s, a, g: g.clip(0) / (1 + np.exp(-s)), summed),
}


def run(name, scores, attentions, gradients, **knobs):
    method = METHODS[name][0]
    if name == "legrad":
        knobs.pop("readout", None)
        return method(gradients, **knobs)
    return method(scores if name == "agcam" else attentions, gradients, **knobs)


@pytest.mark.parametrize("head_fusion", REDUCE)
@pytest.mark.parametrize("ratio", [0.0, 0.6])
@pytest.mark.parametrize("name", METHODS)
def test_each_is_the_slow_version(name, ratio, head_fusion):
    parts = record()
    _, ask, together = METHODS[name]
    knobs = {"head_fusion": head_fusion, "discard_ratio": ratio}
    for readout in readouts():
        rows = readout.expand(BATCH, TOKENS).numpy()
        expected = []
        for image in range(BATCH):
            one = [torch.stack(part)[:, image].numpy() for part in parts]
            expected.append(by_hand(ask(*one), partial(together, rows[image]), head_fusion, ratio))
        assert_close(run(name, *parts, readout=readout, **knobs), torch.tensor(np.array(expected)))


@pytest.mark.parametrize("name", ["generic", "first order", "gradcam", "agcam"])
def test_a_readout_mixes_the_rows_of_the_full_matrix(name):
    parts = record()
    every = run(name, *parts)
    assert every.shape == (BATCH, TOKENS, TOKENS)
    for readout in readouts():
        rows = torch.einsum("bq,bqk->bk", readout.expand(BATCH, TOKENS), every)
        assert_close(run(name, *parts, readout=readout), rows)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_its_images_and_dtype_follows(name):
    parts, readout = record(dtype=torch.float32), readouts()[2].float()
    together = run(name, *parts, readout=readout, discard_ratio=0.4)
    assert together.dtype == torch.float32
    for image in range(BATCH):
        one = [[block[[image]] for block in part] for part in parts]
        alone = run(name, *one, readout=readout[[image]], discard_ratio=0.4)
        assert_close(together[[image]], alone)


@pytest.mark.parametrize("name", METHODS)
def test_permuting_patches_permutes_the_map(name):
    parts, order = record(), torch.tensor([0, 1, 4, 2, 5, 3])
    permuted = [[block[:, :, order][..., order] for block in part] for part in parts]
    readout = readouts()[2]
    expected = run(name, *parts, readout=readout, discard_ratio=0.5)[:, order]
    assert_close(run(name, *permuted, readout=readout[:, order], discard_ratio=0.5), expected)


@pytest.mark.parametrize("name", METHODS)
def test_where_nothing_speaks_for_the_score_the_map_is_what_is_read_or_0(name):
    scores, attentions, gradients = record()
    against = [-gradient.abs() for gradient in gradients]
    for readout in readouts():
        found = run(name, scores, attentions, against, readout=readout)
        kept = readout.expand(BATCH, TOKENS) if name == "generic" else torch.zeros(BATCH, TOKENS)
        assert_close(found, kept.double())


@pytest.mark.parametrize("name", ["generic", "first order", "legrad", "agcam"])
def test_the_first_block_that_counts(name):
    parts, readout = record(), readouts()[0]
    late = run(name, *parts, readout=readout, start_block=2)
    assert_close(late, run(name, *(part[2:] for part in parts), readout=readout))


@pytest.mark.parametrize("readout", readouts())
def test_first_order_is_the_derivative_of_gradient_rollout_where_evidence_vanishes(readout):
    """Less what leaves the tokens that are read."""
    _, attentions, gradients = record()

    def rollout(share):
        weak = [share * gradient for gradient in gradients]
        return gradient_rollout(attentions, weak, readout=readout)

    tiny = 1e-7
    derivative = (rollout(tiny) - rollout(0.0)) / tiny
    products = zip(attentions, gradients, strict=True)
    leaving = sum((a * g).mean(dim=1).clamp(min=0).sum(dim=-1) for a, g in products)
    expected = derivative + readout * leaving
    assert_close(
        first_order(attentions, gradients, readout=readout), expected, rtol=1e-5, atol=1e-6
    )


def test_generic_relevance_and_first_order_agree_where_evidence_vanishes():
    """And where one head is all there is; of several, heads that disagree cancel out in one."""
    _, attentions, gradients = record()
    attentions = [block[:, :1] for block in attentions]
    weak = [1e-6 * gradient[:, :1] for gradient in gradients]
    readout = readouts()[2]
    generic = generic_relevance(attentions, weak, readout=readout) - readout
    assert_close(generic, first_order(attentions, weak, readout=readout), rtol=1e-4, atol=1e-12)


def test_heads_that_disagree_cancel_out_in_first_order_alone():
    attention = torch.full((1, 2, 3, 3), 1 / 3)
    gradient = torch.stack([torch.ones(3, 3), -torch.ones(3, 3)])[None]
    readout = torch.eye(3)[0]
    assert not first_order([attention], [gradient], readout=readout).any()
    found = generic_relevance([attention], [gradient], readout=readout)
    assert_close(found, torch.tensor([[1 + 1 / 6, 1 / 6, 1 / 6]]))


def test_arguments_are_not_changed():
    parts = record()
    before = [[block.clone() for block in part] for part in parts]
    for name in METHODS:
        run(name, *parts, readout=readouts()[0], discard_ratio=0.5)
    for part, copies in zip(parts, before, strict=True):
        for block, copy in zip(part, copies, strict=True):
            assert torch.equal(block, copy)


def test_autocast_changes_nothing():
    attentions = [random_attention(BATCH, HEADS, TOKENS) for _ in range(BLOCKS)]
    gradients = [torch.randn_like(block) for block in attentions]
    expected = generic_relevance(attentions, gradients, readout=torch.eye(TOKENS)[0])
    with torch.autocast("cpu", torch.bfloat16):
        found = generic_relevance(attentions, gradients, readout=torch.eye(TOKENS)[0])
    assert torch.equal(found, expected)
