"""What no relevance can be made of is named: shapes, settings, values that are not finite."""

import pytest
import torch
from helpers import random_attention
from torch import Tensor

from rollout.maths.relevance import (
    agcam,
    attention_gradcam,
    first_order,
    generic_relevance,
    legrad,
)


def record() -> tuple[list[Tensor], list[Tensor]]:
    """Attentions and gradients of four blocks."""
    attentions = [random_attention(2, 3, 6) for _ in range(4)]
    return attentions, [torch.randn_like(block) for block in attentions]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradients": record()[1][:3]}, "got 4 attentions but 3 gradients"),
        (
            {"gradients": [torch.zeros(2, 3, 6, 5)] * 4},
            r"block 0 has \(2, 3, 6, 5\) for \(2, 3, 6, 6\)",
        ),
        ({"readout": torch.ones(6)}, "readout must sum to 1"),
        ({"readout": torch.ones(5) / 5}, r"readout must have shape \(6,\)"),
        ({"head_fusion": "sum"}, "head_fusion must be one of"),
        ({"discard_ratio": 1.0}, r"discard_ratio must be a number in \[0, 1\)"),
        ({"start_block": 4}, r"start_block must be in \[0, 3\]"),
    ],
)
def test_what_makes_no_sense_is_named(change, message):
    attentions, gradients = record()
    gradients = change.get("gradients", gradients)
    knobs = {name: value for name, value in change.items() if name != "gradients"}
    for method in (generic_relevance, first_order, agcam):
        with pytest.raises(ValueError, match=message):
            method(attentions, gradients, **knobs)


def test_values_that_are_not_finite_are_refused():
    attentions, gradients = record()
    gradients[1][0, 0, 0, 0] = torch.nan
    for method in (generic_relevance, first_order, agcam):
        with pytest.raises(ValueError, match="NaN or infinite"):
            method(attentions, gradients)
    with pytest.raises(ValueError, match="NaN or infinite"):
        legrad(gradients)


def test_no_blocks_are_named_as_such():
    for method in (generic_relevance, first_order, agcam, attention_gradcam):
        with pytest.raises(ValueError, match="attentions is empty"):
            method([], [])
