"""The attention of one block, in one call or in several that belong together."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from rollout.capture.attention_call import NO_SCORES, AttentionCall
from rollout.errors import UnsupportedNetworkError
from rollout.maths.block_sequence import ALL


@dataclass(frozen=True)
class ParallelAttention:
    """Calls side by side on the same tokens, their outputs added: one block with all their heads.

    As outputs are added and not averaged, the mean over the heads is half of what two calls move;
    rows still sum to 1, and no head counts more than another.
    """

    calls: tuple[AttentionCall, ...]
    kind = "parallel"

    @property
    def module(self) -> str:
        return self.calls[0].module

    @property
    def shape(self) -> tuple[int, ...]:
        batch, _, query, key = self.calls[0].shape
        return batch, sum(call.shape[1] for call in self.calls), query, key

    @property
    def edges(self) -> tuple[GradientEdge | None, ...]:
        return tuple(call.edge for call in self.calls)

    @property
    def signed(self) -> bool:
        return any(call.signed for call in self.calls)

    def attention(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        parts = [call.attention(own, queries) for call, own in self._share(heads)]
        return torch.cat(parts, dim=1)

    def scores(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        return torch.cat([call.scores(own, queries) for call, own in self._share(heads)], dim=1)

    def attention_gradient(
        self, *received: Tensor | None, heads: slice = ALL, queries: slice = ALL
    ) -> Tensor:
        gradients = dict(zip(self.calls, received, strict=True))
        parts = [
            call.attention_gradient(gradients[call], heads=own, queries=queries)
            for call, own in self._share(heads)
        ]
        return torch.cat(parts, dim=1)

    def _share(self, heads: slice) -> Iterator[tuple[AttentionCall, slice]]:
        """Each call with those of its heads that are asked for."""
        start, stop, _ = heads.indices(self.shape[1])
        first = 0
        for call in self.calls:
            last = first + call.shape[1]
            if max(start, first) < min(stop, last):
                yield call, slice(max(start, first) - first, min(stop, last) - first)
            first = last


@dataclass(frozen=True)
class DifferentialAttention:
    """Two calls with the same values, one subtracted from the other: P = P1 - weight * P2.

    Ye et al., Differential Transformer, 2024, eq. 1. Entries can be negative.
    """

    first: AttentionCall
    second: AttentionCall
    weight: float
    signed = True
    kind = "differential"

    @property
    def module(self) -> str:
        return self.first.module

    @property
    def shape(self) -> tuple[int, ...]:
        return self.first.shape

    @property
    def calls(self) -> tuple[AttentionCall, ...]:
        return self.first, self.second

    @property
    def edges(self) -> tuple[GradientEdge | None, ...]:
        return (self.first.edge,)

    def attention(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        first, second = (call.attention(heads, queries) for call in self.calls)
        return first - self.weight * second

    def scores(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        raise UnsupportedNetworkError(NO_SCORES.format(self.module))

    def attention_gradient(
        self, *received: Tensor | None, heads: slice = ALL, queries: slice = ALL
    ) -> Tensor:
        return self.first.attention_gradient(*received, heads=heads, queries=queries)


Block = AttentionCall | ParallelAttention | DifferentialAttention


def distribution(block: Block, heads: slice = ALL, queries: slice = ALL) -> Tensor:
    """The attention with negatives set to 0 and rows that sum to 1: (batch, heads, query, key).

    The attention itself, unless heads are mixed after the softmax or subtracted from one another. A
    token without any positive entry looks at itself.
    """
    attention = block.attention(heads, queries)
    if not block.signed:
        return attention
    positive = attention.clamp(min=0)
    total = positive.sum(dim=-1, keepdim=True)
    tokens = torch.arange(attention.shape[-1], device=attention.device)
    identity = (tokens[queries, None] == tokens).to(attention.dtype)
    return torch.where(total > 0, positive / total, identity)
