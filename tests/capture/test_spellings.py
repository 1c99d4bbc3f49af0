"""One network, its functions called in other ways: the record is the same."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from helpers import left_as_it_was
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.capture.answer import Answer
from rollout.capture.attention_call import AttentionCall
from rollout.capture.blocks import DifferentialAttention, ParallelAttention, distribution
from rollout.capture.forward_pass import record_attention

HEADS, WIDTH = 3, 12
IMAGES = torch.randn(2, 3, 18, 26, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Spelling:
    """How each step is written."""

    pad: Callable[[Tensor], Tensor] = lambda images: F.pad(images, (0, 4, 2, 0))
    cut: Callable[[Tensor, Tensor], Tensor] = lambda images, weight: F.conv2d(
        images, weight, None, 5, 0, 1, 1
    )
    softmax: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(dim=-1)
    multiply: Callable[[Tensor, Tensor], Tensor] = lambda attention, value: attention @ value
    mix: Callable[[Tensor], Tensor] = lambda tokens: tokens
    pool: Callable[[Tensor], Tensor] = lambda tokens: tokens.amax(dim=1)


class Spelled(nn.Module):
    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spelling = spelling
        self.patches = nn.Parameter(torch.randn(WIDTH, 3, 5, 5) / 5)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 7)

    def forward(self, images: Tensor) -> Tensor:
        how = self.spelling
        tokens = how.cut(how.pad(images), self.patches).flatten(2).mT  # 4 x 6 patches
        for qkv in self.qkv:
            heads = qkv(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            attention = how.softmax(heads[0] @ heads[1].mT)
            tokens = tokens + how.multiply(attention, heads[2]).transpose(1, 2).flatten(2)
            tokens = how.mix(tokens)
        return self.head(how.pool(tokens))


def by_bmm(attention: Tensor, value: Tensor) -> Tensor:
    return torch.bmm(attention.flatten(0, 1), value.flatten(0, 1)).unflatten(0, (-1, HEADS))


def _gated(attention: Tensor) -> Tensor:
    """Weighed by 1, which a softmax over rows of numbers had a part in."""
    gate = attention[0, 0].detach().exp().softmax(dim=0)
    return attention * (0 * gate.sum() + 1)


SPELLINGS = {
    "pad, named": Spelling(pad=lambda images: F.pad(input=images, pad=(0, 4, 2, 0), value=0.0)),
    "cut, briefly": Spelling(cut=lambda images, weight: F.conv2d(images, weight, stride=(5, 5))),
    "cut, named": Spelling(
        cut=lambda images, weight: F.conv2d(input=images, weight=weight, stride=5)
    ),
    "softmax, by place": Spelling(softmax=lambda scores: scores.softmax(3)),
    "softmax of torch": Spelling(softmax=lambda scores: torch.softmax(scores, -1)),
    "functional softmax": Spelling(softmax=lambda scores: F.softmax(scores, dim=3)),
    "matmul": Spelling(multiply=torch.matmul),
    "method": Spelling(multiply=lambda attention, value: attention.matmul(value)),
    "a gate in between": Spelling(softmax=lambda scores: _gated(scores.softmax(dim=-1))),
    "pool, by place": Spelling(pool=lambda tokens: tokens.amax(1)),
    "pool of torch": Spelling(pool=lambda tokens: torch.amax(tokens, dim=1)),
    "pool of torch, by place": Spelling(pool=lambda tokens: torch.amax(tokens, 1)),
    "other softmaxes": Spelling(
        mix=lambda tokens: tokens + 0 * tokens.softmax(dim=-1).sum() + 0 * tokens[0].softmax(dim=0)
    ),
    "a maximum of channels": Spelling(
        mix=lambda tokens: tokens + 0 * tokens.amax(dim=2, keepdim=True)
    ),
    "convolutions of one token": Spelling(
        mix=lambda tokens: (
            tokens + 0 * F.conv2d(tokens.mT.unflatten(2, (4, 6)), torch.ones(1, WIDTH, 1, 1)).sum()
        )
    ),
    "its weight named": Spelling(
        mix=lambda tokens: (
            tokens + 0 * F.conv2d(tokens.mT[..., None], weight=torch.ones(1, WIDTH, 1, 1)).sum()
        )
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_record_does_not_depend_on_how_it_is_written(name):
    expected = record_attention(Spelled(Spelling()), IMAGES)
    network = Spelled(SPELLINGS[name])
    with left_as_it_was(network):
        found = record_attention(network, IMAGES)
    assert found.convolution_size == (4, 6)
    assert found.convolution_extent == expected.convolution_extent == (-2, 0, 18, 30)
    assert_close(found.maxima, expected.maxima)
    assert found.maxima.shape == (2, 24)
    assert_close(found.maxima.sum(dim=1), torch.ones(2))
    assert_close(found.logits, expected.logits)
    for block in range(2):
        assert_close(found.attentions[block], expected.attentions[block])
        assert_close(found.gradients([1, 2])[block], expected.gradients([1, 2])[block])


def by_convolution(channels: int, rows: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (channels, rows, 1)), nn.Conv2d(channels, 7, 1), nn.Flatten()
    )


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (nn.Linear(WIDTH, 7), Answer("head")),
        (by_convolution(WIDTH, 1), Answer("head.1")),
        (by_convolution(WIDTH // 2, 2), None),  # of two pixels: features
        (nn.Sequential(nn.Linear(WIDTH, 7), nn.Softmax(dim=-1)), Answer("head.0", "softmax")),
        (nn.Sequential(nn.Linear(WIDTH, 7), nn.LayerNorm(7)), None),
    ],
)
def test_an_answer_is_known_by_the_layer_that_made_it(head, answer):
    network = Spelled(Spelling())
    network.head = head
    assert record_attention(network, IMAGES).answer == answer


def calls(*heads: int) -> list[AttentionCall]:
    return [
        AttentionCall(f"attn{place}", *(torch.randn(2, count, 5, 4) for _ in range(3)))
        for place, count in enumerate(heads)
    ]


def test_any_heads_of_calls_side_by_side_are_those_of_all_together():
    block = ParallelAttention(tuple(calls(4, 1, 2)))
    received = [torch.randn(2, heads, 5, 4) for heads in (4, 1, 2)]
    pairs = list(zip(block.calls, received, strict=True))
    whole = torch.cat([call.attention() for call, _ in pairs], dim=1)
    moved = torch.cat([call.attention_gradient(one) for call, one in pairs], dim=1)
    assert block.shape == whole.shape == (2, 7, 5, 5) and block.module == "attn0"
    for some in (slice(first, last) for first, last in combinations(range(8), 2)):
        assert_close(block.attention(some), whole[:, some])
        assert_close(block.attention_gradient(*received, heads=some), moved[:, some])


def test_a_row_without_a_positive_entry_looks_at_itself():
    """Where twice as much is subtracted, nothing is left."""
    one, other = calls(3, 3)
    block = DifferentialAttention(one, one, 2.0)
    assert_close(block.attention(), -one.attention())
    assert_close(distribution(block), torch.eye(5).expand(2, 3, 5, 5))
    mixed = DifferentialAttention(one, other, 0.5)
    positive = (one.attention() - 0.5 * other.attention()).clamp(min=0)
    assert_close(distribution(mixed), positive / positive.sum(dim=-1, keepdim=True))
    assert torch.equal(distribution(one), one.attention())
    assert mixed.shape == (2, 3, 5, 5) and mixed.edges == (None,)
