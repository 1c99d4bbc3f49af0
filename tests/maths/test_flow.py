"""Attention flow: equal to independent solvers, between its bounds, proved by its cut."""

import networkx as nx
import numpy as np
import pytest
import torch
from helpers import BAD_SETTINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from rollout.maths.flow import CUTS, Flow, attention_flow, gradient_flow
from rollout.maths.fusion import discard_lowest, fuse_heads, transition
from rollout.maths.maxflow import TOLERANCE, LayeredNetwork
from rollout.maths.rollout import attention_rollout, gradient_rollout

KINDS = ("peaked", "uniform", "sparse", "identity")


def random_attention(kind, blocks, tokens, *, batch=2, heads=3, seed=0, sharpness=3.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (blocks, batch, heads, tokens, tokens)
    scores = sharpness * torch.randn(shape, generator=generator, dtype=torch.float64)
    popularity = sharpness * torch.randn(
        shape[:-2] + (1, tokens), generator=generator, dtype=torch.float64
    )
    eye = torch.eye(tokens, dtype=torch.float64)
    attention = {
        "peaked": (scores + popularity).softmax(dim=-1),
        "uniform": torch.full(shape, 1 / tokens, dtype=torch.float64),
        "sparse": scores.where((scores > 0) | eye.bool(), -torch.inf).softmax(dim=-1),
        "identity": eye.expand(shape),
    }[kind]
    return list(attention)


def random_readout(tokens, seed=0):
    weights = torch.rand(tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights / weights.sum()


def transitions_of(attentions, head_fusion="mean", discard_ratio=0.0):
    """(batch, blocks, query, key), first block first."""
    fused = [discard_lowest(fuse_heads(block, head_fusion), discard_ratio) for block in attentions]
    return torch.stack([transition(block) for block in fused], dim=1)


def flow_by_networkx(transitions, readout):
    """The definition, edge by edge: (blocks, query, key) -> (key,)."""
    graph = nx.DiGraph()
    blocks, tokens, _ = transitions.shape
    for token, weight in enumerate(readout.tolist()):
        graph.add_edge("source", (blocks, token), capacity=weight)
    for block, query, key in np.ndindex(transitions.shape):
        graph.add_edge(
            (block + 1, query), (block, key), capacity=transitions[block, query, key].item()
        )
    values = [nx.maximum_flow_value(graph, "source", (0, token)) for token in range(tokens)]
    return torch.tensor(values, dtype=torch.float64)


def flow_by_dense_scipy(transitions, sinks):
    """The full graph, class token as source, capacities rounded down, -> (sinks,)."""
    blocks, tokens, _ = transitions.shape
    query, key = np.indices((tokens, tokens)).reshape(2, -1)
    tails = np.concatenate([(block + 1) * tokens + query for block in range(blocks)])
    heads = np.concatenate([block * tokens + key for block in range(blocks)])
    capacities = (transitions.numpy().ravel() * 2**30).astype(np.int32)
    graph = csr_array((capacities, (tails, heads)), shape=((blocks + 1) * tokens,) * 2)
    values = [maximum_flow(graph, blocks * tokens, sink).flow_value / 2**30 for sink in sinks]
    return torch.tensor(values, dtype=torch.float64)


def class_token(tokens):
    return torch.eye(1, tokens, dtype=torch.float64)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("blocks", "tokens"), [(1, 4), (2, 3), (2, 8), (3, 5), (4, 6)])
@pytest.mark.parametrize("spread", [False, True])
def test_flow_equals_networkx(kind, blocks, tokens, spread):
    attentions = random_attention(kind, blocks, tokens, seed=blocks + tokens)
    readout = random_readout(tokens) if spread else class_token(tokens)
    flow = attention_flow(attentions, readout=readout)
    slow = torch.stack([flow_by_networkx(image, readout) for image in transitions_of(attentions)])
    torch.testing.assert_close(flow.values, slow, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 4),
    st.integers(3, 8),
    st.integers(0, 10**6),
    st.sampled_from(["mean", "max", "min"]),
    st.sampled_from([0.0, 0.3, 0.8]),
    st.floats(0.5, 6.0),
)
def test_flow_equals_networkx_whatever_the_settings(
    kind, blocks, tokens, seed, head_fusion, discard_ratio, sharpness
):
    attentions = random_attention(kind, blocks, tokens, batch=1, seed=seed, sharpness=sharpness)
    readout = random_readout(tokens, seed) if seed % 2 else None
    knobs = {"head_fusion": head_fusion, "discard_ratio": discard_ratio}
    flow = attention_flow(attentions, readout=readout, **knobs)
    source = class_token(tokens) if readout is None else readout
    slow = flow_by_networkx(transitions_of(attentions, **knobs)[0], source)
    torch.testing.assert_close(flow.values[0], slow, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "blocks", "sharpness"),
    [
        (50, 2, 3),
        (50, 3, 0.1),
        (50, 3, 4),
        (50, 5, 4),
        (197, 3, 0.3),
        (197, 3, 3),
        (197, 5, 2),
        (197, 12, 2),
    ],
)
def test_flow_equals_dense_scipy(tokens, blocks, sharpness):
    attentions = random_attention("peaked", blocks, tokens, batch=1, sharpness=sharpness)
    values = attention_flow(attentions).values[0]
    sinks = range(0, tokens, tokens // 12)
    slow = flow_by_dense_scipy(transitions_of(attentions)[0], sinks)
    # Rounding down costs the reference up to 2^-30 for every edge of its cut, here thousands.
    torch.testing.assert_close(values[sinks], slow, rtol=0, atol=4e-6)


def assert_cut_proves_values(flow: Flow, transitions, readout):
    """The partition separates, its full capacity is the value, and a flow reaches it."""
    source_side = flow.source_side.to(torch.float64)  # (batch, key, level, tokens)
    tokens = source_side.shape[-1]
    assert torch.equal(
        flow.source_side[:, :, 0],
        ~torch.eye(tokens, dtype=torch.bool).expand(len(transitions), -1, -1),
    )
    above, below = source_side[:, :, 1:], 1 - source_side[:, :, :-1]
    severed = torch.einsum("bklq,blqt,bklt->bkl", above, transitions, below)
    at_readout = ((1 - source_side[:, :, -1]) * readout).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(flow.severed, torch.cat([severed, at_readout], dim=-1))
    torch.testing.assert_close(flow.severed.sum(dim=-1), flow.values)
    assert (flow.routed <= flow.values + 1e-12).all()
    assert (flow.values - flow.routed <= TOLERANCE).all()


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("blocks", "tokens"), [(1, 6), (2, 40), (3, 40), (4, 60), (6, 30)])
def test_the_reported_cut_proves_the_value(blocks, tokens, spread):
    attentions = random_attention("peaked", blocks, tokens)
    readout = random_readout(tokens) if spread else class_token(tokens)
    flow = attention_flow(attentions, readout=readout)
    assert_cut_proves_values(flow, transitions_of(attentions), readout)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.floats(0, 8),
)
def test_rollout_is_below_flow_and_flow_below_the_trivial_cuts(
    kind, blocks, tokens, seed, sharpness
):
    attentions = random_attention(kind, blocks, tokens, seed=seed, sharpness=sharpness)
    readout = random_readout(tokens, seed)
    flow = attention_flow(attentions, readout=readout)
    transitions = transitions_of(attentions)
    assert (attention_rollout(attentions, readout=readout) <= flow.values + TOLERANCE).all()
    assert (flow.values <= transitions[:, 0].sum(dim=-2).clamp(max=1) + TOLERANCE).all()
    assert_cut_proves_values(flow, transitions, readout)


# Flow of evidence


def random_gradients(attentions, strength=1.0):
    generator = torch.Generator().manual_seed(5)
    return [
        strength * torch.randn(block.shape, generator=generator, dtype=block.dtype)
        for block in attentions
    ]


def evidence_of(attentions, gradients, head_fusion, discard_ratio):
    products = [block * gradient for block, gradient in zip(attentions, gradients, strict=True)]
    fused = [fuse_heads(product, head_fusion).clamp(min=0) for product in products]
    return torch.stack([transition(discard_lowest(one, discard_ratio)) for one in fused], dim=1)


@pytest.mark.parametrize("head_fusion", ["mean", "max"])
@pytest.mark.parametrize("discard_ratio", [0.0, 0.6])
@pytest.mark.parametrize(("blocks", "tokens"), [(1, 5), (2, 4), (3, 6)])
def test_gradient_flow_equals_networkx(blocks, tokens, head_fusion, discard_ratio):
    attentions = random_attention("peaked", blocks, tokens)
    gradients, readout = random_gradients(attentions), random_readout(tokens)
    knobs = {"head_fusion": head_fusion, "discard_ratio": discard_ratio}
    flow = gradient_flow(attentions, gradients, readout=readout, **knobs)
    transitions = evidence_of(attentions, gradients, head_fusion, discard_ratio)
    slow = torch.stack([flow_by_networkx(image, readout) for image in transitions])
    torch.testing.assert_close(flow.values, slow, rtol=0, atol=1e-6)
    assert_cut_proves_values(flow, transitions, readout)
    rollout = gradient_rollout(attentions, gradients, readout=readout, **knobs)
    assert (rollout <= flow.values + TOLERANCE).all()


@pytest.mark.parametrize("strength", [1e-2, 1e-4])
def test_little_evidence_is_told_apart(strength):
    """Where it is far below the residual, evidence from a token does not thin out on its way."""
    attentions = random_attention("peaked", 3, 7)
    gradients = random_gradients(attentions, strength)
    values = gradient_flow(attentions, gradients).values
    slow = torch.stack(
        [
            flow_by_networkx(image, class_token(7))
            for image in evidence_of(attentions, gradients, "mean", 0.0)
        ]
    )
    torch.testing.assert_close(values, slow, rtol=0, atol=TOLERANCE)
    patches = values[:, 1:]
    assert (patches.amax(dim=1) > patches.amin(dim=1) + 2 * TOLERANCE).all()


def test_gradient_flow_leaves_blocks_out_and_has_one_value_per_image():
    attentions = random_attention("peaked", 4, 5)
    gradients = random_gradients(attentions)
    together = gradient_flow(attentions, gradients, start_block=2)
    torch.testing.assert_close(together.values, gradient_flow(attentions[2:], gradients[2:]).values)
    for image in range(2):
        one = [[block[[image]] for block in part] for part in (attentions, gradients)]
        alone = gradient_flow(*one, start_block=2)
        torch.testing.assert_close(alone.values, together.values[[image]], rtol=0, atol=1e-6)


def test_gradient_flow_where_nothing_speaks_for_the_score():
    attentions = random_attention("peaked", 3, 5)
    against = [-gradient.abs() for gradient in random_gradients(attentions)]
    flow = gradient_flow(attentions, against)
    assert torch.equal(flow.values, class_token(5).expand(2, 5))


def test_gradient_flow_refuses_what_is_not_alike():
    attentions = random_attention("peaked", 2, 5)
    with pytest.raises(ValueError, match="got 2 attentions but 1 gradients"):
        gradient_flow(attentions, random_gradients(attentions)[:1])
    with pytest.raises(ValueError, match=r"block 1 has \(2, 3, 5, 4\)"):
        short = [random_gradients(attentions)[0], torch.zeros(2, 3, 5, 4)]
        gradient_flow(attentions, short)
    other = random_attention("peaked", 1, 6)
    with pytest.raises(ValueError, match="blocks differ in size"):
        gradient_flow(attentions + other, random_gradients(attentions + other))


def test_permuting_patches_permutes_the_map():
    attentions = random_attention("peaked", 3, 12)
    order = torch.cat(
        [torch.tensor([0]), 1 + torch.randperm(11, generator=torch.Generator().manual_seed(1))]
    )
    permuted = [block[:, :, order][..., order] for block in attentions]
    values = attention_flow(attentions).values
    torch.testing.assert_close(attention_flow(permuted).values, values[:, order], rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 10**6))
def test_wider_pipes_never_carry_less(blocks, tokens, seed):
    random = np.random.default_rng(seed)
    supply, demands = random.random(tokens) / tokens, random.random((tokens, tokens))
    narrow = random.random((blocks, tokens, tokens)) ** 8
    wide = narrow + random.random(narrow.shape) ** 8 * (random.random(narrow.shape) < 0.3)
    before, after = LayeredNetwork(supply, narrow, demands), LayeredNetwork(supply, wide, demands)
    for sink in range(tokens):
        assert (
            after.minimum_cut(sink)[0].capacity >= before.minimum_cut(sink)[0].capacity - TOLERANCE
        )


def test_tokens_that_discarding_cuts_off_get_nothing():
    attentions = random_attention("peaked", 3, 9)
    flow = attention_flow(attentions, discard_ratio=0.9)
    reachable = transitions_of(attentions, discard_ratio=0.9) > 0
    paths = (reachable[:, 2].double() @ reachable[:, 1].double() @ reachable[:, 0].double())[:, 0]
    assert (paths == 0).any()
    assert torch.equal(flow.values > 0, paths > 0)


def test_identity_attention_gives_identity():
    values = attention_flow(random_attention("identity", 4, 5)).values
    torch.testing.assert_close(values, class_token(5).expand(2, 5))


def test_one_block_is_read_off_its_row():
    attentions = random_attention("peaked", 1, 7)
    row = transitions_of(attentions)[:, 0, 0]
    torch.testing.assert_close(attention_flow(attentions).values, row, rtol=0, atol=1e-7)


def test_batch_equals_its_images_one_by_one():
    attentions = random_attention("peaked", 3, 10, batch=3)
    readouts = torch.stack([random_readout(10, seed) for seed in range(3)])
    together = attention_flow(attentions, readout=readouts)
    for image in range(3):
        alone = attention_flow([block[[image]] for block in attentions], readout=readouts[image])
        torch.testing.assert_close(together.values[[image]], alone.values)
        assert torch.equal(together.source_side[[image]], alone.source_side)


def test_start_block_leaves_the_earlier_blocks_out():
    attentions = random_attention("peaked", 5, 8)
    last_three = attention_flow(attentions, start_block=2)
    torch.testing.assert_close(last_three.values, attention_flow(attentions[2:]).values)
    assert last_three.severed.shape == (2, 8, 4)
    assert any(f"block {block}" in last_three.describe_cut(3) for block in (2, 3, 4))


def test_no_readout_reads_the_class_token():
    attentions = random_attention("peaked", 3, 6)
    explicit = attention_flow(attentions, readout=class_token(6))
    torch.testing.assert_close(attention_flow(attentions).values, explicit.values)


def test_cut_names_where_the_bottleneck_is():
    """A deep dense stack binds at its ends; two blocks of peaked attention bind in between."""
    ends = attention_flow(random_attention("peaked", 10, 30, sharpness=1.0))
    assert set(ends.cut.unique().tolist()) == {CUTS.index("input"), CUTS.index("readout")}
    at_input = ends.cut == CUTS.index("input")
    column_sums = transitions_of(random_attention("peaked", 10, 30, sharpness=1.0))[:, 0].sum(
        dim=-2
    )
    torch.testing.assert_close(ends.values[at_input], column_sums[at_input])
    torch.testing.assert_close(ends.values[~at_input], torch.ones_like(ends.values[~at_input]))
    token = int(at_input[0].long().argmax())
    assert ends.describe_cut(token) == "input: 100% in block 1"

    shallow = attention_flow(random_attention("peaked", 2, 30))
    assert (shallow.cut == CUTS.index("between")).sum() > 30
    token = int((shallow.cut[1] == CUTS.index("between")).long().argmax())
    assert shallow.describe_cut(token, image=1).startswith("between: ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_precision_of_attention_is_taken(dtype):
    attentions = [
        block.to(dtype).requires_grad_()
        for block in random_attention("peaked", 3, 20, sharpness=1.0)
    ]
    values = attention_flow(attentions).values
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    assert not values.requires_grad
    exact = attention_flow(random_attention("peaked", 3, 20, sharpness=1.0)).values
    torch.testing.assert_close(
        values.double(), exact, rtol=0, atol=20 * torch.finfo(dtype).eps + 1e-6
    )


def test_attentions_stay_untouched():
    attentions = random_attention("peaked", 3, 8)
    before = [block.clone() for block in attentions]
    attention_flow(attentions, discard_ratio=0.5)
    for block, copy in zip(attentions, before, strict=True):
        assert torch.equal(block, copy)


def test_progress_counts_every_token_once():
    steps = []
    attention_flow(random_attention("peaked", 2, 7, batch=2), progress=steps.append)
    assert sum(steps) == 2 * 7


def test_progress_is_asked_before_the_first_token_too():
    """Once for each block as it is fused, and for each transition of each image."""
    steps = []
    attention_flow(random_attention("peaked", 3, 7, batch=2), progress=steps.append)
    assert steps == [0] * 3 + ([0] * 3 + [1] * 7) * 2


def test_cancelling_goes_straight_through():
    def cancel(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attention_flow(random_attention("peaked", 2, 7), progress=cancel)


def with_entry(value, block=1):
    attentions = [attention.clone() for attention in random_attention("peaked", 3, 5)]
    attentions[block][1, 2, 3, 4] = value
    return attentions


@pytest.mark.parametrize(
    ("attentions", "knobs", "message"),
    [
        ([], {}, "attentions is empty; pass one"),
        (
            with_entry(0.9),
            {},
            r"rows of attention must sum to 1, one sums to 1\.\d+ in block 1; pass the prob",
        ),
        (
            with_entry(-0.25),
            {},
            r"finite and non-negative, got values from -0.25 to .* in block 1; pass the",
        ),
        (
            with_entry(float("nan"), 2),
            {},
            r"finite and non-negative, got .*nan.* in block 2; pass the prob",
        ),
        (
            with_entry(float("inf")),
            {},
            r"finite and non-negative, got values from .* to inf in block 1",
        ),
        (
            [torch.eye(5)] * 2,
            {},
            r"block 0 must be \(batch, heads, query, key\) .* got shape \(5, 5\)",
        ),
        (
            [torch.ones(2, 3, 4, 5) / 5],
            {},
            r"as many queries as keys, got shape \(2, 3, 4, 5\) in block 0",
        ),
        (
            random_attention("uniform", 1, 5) + random_attention("uniform", 1, 6),
            {},
            r"blocks differ in size: .* \(2, 5, 5\) in block 0 but \(2, 6, 6\) in block 1; flow n",
        ),
        (
            with_entry(0.0, 1)[:1],
            {"readout": torch.ones(4) / 4},
            r"readout must have shape \(5,\) .* got \(4,\)",
        ),
        (with_entry(0.0, 1)[:1], {"readout": torch.ones(5)}, "readout must sum to 1, got"),
        (
            with_entry(0.0, 1)[:1],
            {"readout": torch.ones(3, 5) / 5},
            "readout holds 3 distributions for a batch of 2; pass one each",
        ),
        *((with_entry(0.0, 1)[:1], knobs, message) for knobs, message in BAD_SETTINGS),
        (
            with_entry(0.0, 1)[:1],
            {"start_block": 1},
            r"start_block must be in \[0, 0\] for 1 blocks, got 1",
        ),
    ],
)
def test_bad_input_says_what_came_and_what_is_wanted(attentions, knobs, message):
    with pytest.raises(ValueError, match=message):
        attention_flow(attentions, **knobs)
