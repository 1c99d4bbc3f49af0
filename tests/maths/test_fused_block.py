"""Blocks too large to be held are chained some queries at a time: nothing changes by that."""

import pytest
import torch
from helpers import random_attention
from torch.testing import assert_close

from rollout import attention_rollout, gradient_rollout
from rollout.capture.attention_call import AttentionCall
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.blocks import DifferentialAttention, ParallelAttention
from rollout.maths import block_sequence, fused_block
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.evidence import fused_last_first
from rollout.maths.fused_block import FusedBlock
from rollout.maths.fusion import discard_lowest, fuse_heads, kept_rows
from rollout.maths.order_statistics import streamed_order_statistics
from rollout.maths.rollout import chain
from rollout.maths.walks import last_block

FUSIONS = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
TOKENS = 7
RATIOS = (0.0, 0.3, 0.9)


@pytest.fixture(params=["kept", "computed anew"])
def three_queries_at_a_time(request, monkeypatch):
    """7 tokens in pieces of 3, 3 and 1 queries."""
    monkeypatch.setattr(fused_block, "GROUP_ENTRIES", 3 * TOKENS)
    if request.param == "computed anew":
        monkeypatch.setattr(fused_block, "KEPT_ENTRIES", 1)


def call(heads=4, key_heads=4, dtype=torch.float32, **options):
    query, key, value = (
        torch.randn(2, own, TOKENS, 5, dtype=dtype) for own in (heads, key_heads, key_heads)
    )
    return AttentionCall("attn", value, query, key, **options)


def written_out():
    probabilities = random_attention(2, 4, TOKENS)
    return AttentionCall("attn", torch.randn(2, 4, TOKENS, 5), probabilities=probabilities)


def differential():
    first, second = call(), call()
    return DifferentialAttention(first, second, 0.4)


BLOCKS = {
    "plain": call,
    "one head": lambda: call(heads=1, key_heads=1),
    "shared keys": lambda: call(key_heads=2),
    "one mask": lambda: call(mask=torch.randn(TOKENS, TOKENS)),
    "a mask per head": lambda: call(mask=torch.rand(2, 4, TOKENS, TOKENS) > 0.3),
    "causal": lambda: call(is_causal=True, scale=0.3),
    "half precision": lambda: call(dtype=torch.float16),
    "written out": written_out,
    "parallel": lambda: ParallelAttention((call(), call())),
    "differential": differential,
}


def record(kind):
    blocks = tuple(BLOCKS[kind]() for _ in range(3))
    return AttentionRecord(torch.zeros(2, 1), blocks, None)


def rolled_by_hand(entries, head_fusion, ratio, readout):
    """The definition, entry by entry: sort, compare, add the identity, divide, multiply."""
    rollout = torch.eye(TOKENS, dtype=torch.float64)
    for block in entries:
        fused = FUSIONS[head_fusion](block.double(), dim=1).clamp(min=0)
        for matrix in fused:
            smallest = matrix.flatten().sort().values[int(ratio * TOKENS**2)]
            first = matrix[0, 0].clone()
            matrix[matrix < smallest] = 0
            matrix[0, 0] = first
        identity = torch.eye(TOKENS, dtype=torch.float64)
        rollout = (fused + identity) / (fused + identity).sum(-1, keepdim=True) @ rollout
    return torch.einsum("bq,bqk->bk", readout.double().expand(2, TOKENS), rollout).float()


@pytest.mark.parametrize("kind", BLOCKS)
def test_rollouts_in_pieces_are_those_of_the_definition(kind, three_queries_at_a_time):
    recorded = record(kind)
    received = [torch.randn(2, block.shape[1], TOKENS, 5) for block in recorded.blocks]
    pairs = zip(recorded.blocks, received, strict=True)
    whole = [block.attention_gradient(*_split(block, one)) for block, one in pairs]
    gradients = _sequence(recorded.blocks, received)
    readout = torch.rand(2, TOKENS).softmax(dim=-1)
    attentions = list(recorded.distributions)
    for head_fusion in FUSIONS:
        for ratio in RATIOS:
            knobs = {"head_fusion": head_fusion, "discard_ratio": ratio, "readout": readout}
            vanilla = attention_rollout(recorded.distributions, **knobs)
            expected = rolled_by_hand(attentions, head_fusion, ratio, readout)
            assert_close(vanilla, expected, rtol=0, atol=1e-6)
            products = [a * g for a, g in zip(recorded.attentions, whole, strict=True)]
            specific = gradient_rollout(recorded.attentions, gradients, **knobs)
            expected = rolled_by_hand(products, head_fusion, ratio, readout)
            assert_close(specific, expected, rtol=0, atol=1e-6)


def _split(block, received):
    """What each call of a block received."""
    return received.split(4, dim=1) if isinstance(block, ParallelAttention) else (received,)


def _sequence(blocks, received):
    compute = [
        lambda heads, queries, block=block, one=one: block.attention_gradient(
            *_split(block, one), heads=heads, queries=queries
        )
        for block, one in zip(blocks, received, strict=True)
    ]
    return BlockSequence(compute, [block.shape for block in blocks])


@pytest.mark.parametrize("levels", [3, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_same_entries_are_discarded(levels, dtype, three_queries_at_a_time):
    heads = random_attention(2, 3, TOKENS).to(dtype)
    if levels:  # most entries are equal, and many 0
        heads = (levels * heads).round() / levels
    (block,) = fused_last_first([heads], None, list(FUSIONS))
    kept = {}
    for fusion, ratio, queries, rows in kept_rows(block, RATIOS):
        kept.setdefault((fusion, ratio), []).append((queries.start, rows))
    for fusion, head_fusion in enumerate(FUSIONS):
        expected = fuse_heads(heads, head_fusion)
        assert torch.equal(block[fusion], expected)
        for place, ratio in enumerate(RATIOS):
            starts, rows = zip(*kept[fusion, place], strict=True)
            assert starts == (0, 3, 6)
            assert torch.equal(torch.cat(rows, dim=1), discard_lowest(expected, ratio))


def test_all_output_tokens_and_later_blocks(three_queries_at_a_time):
    recorded = record("plain")
    attentions = list(recorded.attentions)
    for readout in (None, torch.eye(TOKENS)[4]):  # every token, one that is asked for
        rows = attention_rollout(
            recorded.attentions, start_block=1, discard_ratio=0.5, readout=readout
        )
        for token in range(TOKENS) if readout is None else [4]:
            row = rows[:, token] if readout is None else rows
            one = torch.eye(TOKENS)[token]
            assert_close(row, rolled_by_hand(attentions[1:], "mean", 0.5, one), rtol=0, atol=1e-6)


def test_raw_attention_in_pieces(three_queries_at_a_time):
    recorded = record("plain")
    readouts = torch.rand(3, 2, TOKENS).softmax(dim=-1)
    fused = fused_last_first(recorded.attentions, None, list(FUSIONS))
    raw = last_block(fused, RATIOS, readouts)
    for fusion, reduce in enumerate(FUSIONS.values()):
        for place, ratio in enumerate(RATIOS):
            kept = discard_lowest(reduce(recorded.attentions[2], dim=1), ratio)
            expected = torch.einsum("bq,bqk->bk", readouts[fusion], kept)
            assert_close(raw[fusion, place], expected)


def test_large_blocks_are_never_whole(monkeypatch):
    """Neither all rows of a matrix nor all heads of a piece are asked for at once."""
    monkeypatch.setattr(fused_block, "GROUP_ENTRIES", 3 * TOKENS)
    monkeypatch.setattr(fused_block, "KEPT_ENTRIES", TOKENS**2 - 1)
    monkeypatch.setattr(block_sequence, "GROUP_ENTRIES", 2 * 3 * TOKENS)
    asked = []

    def attention(heads, queries):
        asked.append((heads.stop - heads.start, queries.stop - queries.start))
        return whole[:, heads, queries]

    whole = random_attention(2, 4, TOKENS)
    blocks = BlockSequence([attention], [whole.shape])
    rolled = chain(fused_last_first(blocks, None, ["max", "min"]), [0.5, 0.9], [None, None])
    assert set(asked) == {(1, 3), (3, 1)}  # heads, queries
    whole_at_once = chain(fused_last_first([whole], None, ["max", "min"]), [0.5, 0.9], [None] * 2)
    assert_close(rolled, whole_at_once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_selection_bit_by_bit_equals_sorting(dtype):
    rows = torch.stack(
        [
            torch.rand(90),
            torch.rand(90).sub(0.8).clamp(min=0),  # mostly zero, and some of these negative
            torch.full((90,), 0.5),
            torch.rand(90) * 1e-6 + 1,  # alike in their higher bits
        ]
    ).to(dtype)
    rows[1, ::3] *= -1
    rows[1].clamp_(max=0).mul_(-1)
    indices = [0, 1, 45, 44, 89]
    found = streamed_order_statistics(lambda: rows.split(40, dim=1), indices)
    for row, selected in zip(rows, found, strict=True):
        assert selected.dtype == dtype
        assert torch.equal(selected, row.sort().values[indices])


def test_matrices_that_are_there_stay_what_they_are():
    matrices = [torch.rand(2, TOKENS, TOKENS) for _ in range(2)]
    block = FusedBlock.of(matrices)
    assert len(block) == 2 and FusedBlock.of(block) is block
    assert all(torch.equal(one, two) for one, two in zip(block, matrices, strict=True))
