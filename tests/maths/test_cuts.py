"""What is said of a bottleneck: which cut binds, in which block, and what is too little to say."""

import re

import pytest
import torch
from torch.testing import assert_close

from rollout.maths.flow import CUTS, Flow, attention_flow
from rollout.maths.maxflow import TOLERANCE


def attentions(blocks=4, tokens=8):
    return [(3 * torch.randn(2, 3, tokens, tokens)).softmax(dim=-1) for _ in range(blocks)]


def cut_at(*severed: float, start_block: int = 0) -> Flow:
    """One token's cut with these capacities, first block to readout."""
    capacities = torch.tensor([[severed]], dtype=torch.float64)
    total = capacities.sum(dim=-1)
    side = torch.ones(1, 1, len(severed), 3, dtype=torch.bool)
    return Flow(total, total, capacities, side, start_block)


@pytest.mark.parametrize(
    ("severed", "said"),
    [
        ((0.4, 0.0, 0.0), "input: 100% in block 1"),
        ((0.0, 0.0, 1.0), "readout: 100% in the readout"),
        ((0.0, 0.5, 0.0), "between: 100% in block 2"),
        ((0.3, 0.1, 0.0), "between: 75% in block 1, 25% in block 2"),
        ((0.1, 0.0, 0.3), "between: 25% in block 1, 75% in the readout"),
        # What the flow is not known to is no bottleneck of its own.
        ((0.4, TOLERANCE / 2, 0.0), "input: 100% in block 1"),
        ((0.4, 2 * TOLERANCE, 0.0), "between: 100% in block 1, 0% in block 2"),
        ((TOLERANCE / 2, 0.0, 0.9), "readout: 100% in the readout"),
        ((2 * TOLERANCE, 0.0, 0.9), "between: 0% in block 1, 100% in the readout"),
        # Where nothing arrives, the token itself is cut off.
        ((0.0, 0.0, 0.0), "input: nothing gets through"),
        ((TOLERANCE / 2, 0.0, 0.0), "input: nothing gets through"),
    ],
)
def test_a_cut_is_described_by_where_it_lies(severed, said):
    assert cut_at(*severed).describe_cut(0) == said
    moved = re.sub(r"block (\d+)", lambda found: f"block {int(found[1]) + 5}", said)
    assert cut_at(*severed, start_block=5).describe_cut(0) == moved


def test_blocks_keep_their_numbers_when_the_first_are_left_out():
    blocks = attentions(5)
    late, alone = attention_flow(blocks, start_block=2), attention_flow(blocks[2:])
    for token in range(8):
        said = alone.describe_cut(token, image=1)
        moved = re.sub(r"block (\d+)", lambda found: f"block {int(found[1]) + 2}", said)
        assert late.describe_cut(token, image=1) == moved


def test_where_both_ends_are_as_narrow_the_token_is_named():
    """All that the readout holds arrives at one token by one path: either end is a cut."""
    flow = attention_flow([torch.eye(5).expand(2, 3, 5, 5)] * 3)
    assert_close(flow.values, torch.eye(5)[:1].expand(2, 5))
    assert [CUTS[index] for index in flow.cut[0]] == ["input"] * 5
    assert flow.describe_cut(0) == "input: 100% in block 1"
    assert flow.describe_cut(3) == "input: nothing gets through"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_readout_in_half_precision_feeds_no_more_than_all(dtype):
    """Tenths are no numbers of half precision, and ten of them are not one."""
    blocks, readout = attentions(3, 11), torch.full((11,), 1 / 10)
    readout[0] = 0
    assert abs(readout.to(dtype).double().sum() - 1) > 2e-4
    exact = attention_flow(blocks, readout=readout)
    found = attention_flow(blocks, readout=readout.to(dtype))
    assert_close(found.values, exact.values, rtol=0, atol=2 * TOLERANCE)
    assert (found.values <= 1 + TOLERANCE).all()


@pytest.mark.parametrize(("sum_of_row", "taken"), [(1.004, True), (1.02, False), (0.98, False)])
def test_rows_may_differ_from_one_by_what_half_precision_costs(sum_of_row, taken):
    blocks = attentions(2)
    blocks[1][1, 2, 3] *= sum_of_row
    if taken:
        assert attention_flow(blocks).values.isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"rows of attention must sum to 1.* in block 1"):
            attention_flow(blocks)
