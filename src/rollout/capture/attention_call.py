"""One attention call: what it was given, and what follows from that.

Kept are the queries, keys and values. From those

    attention          P = softmax(q k^T * scale + mask)
    its gradient      dP = dO v^T,  because the call's output is O = P v

are computed when asked for: no (tokens x tokens) matrix enters the graph.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from rollout.errors import UnsupportedNetworkError
from rollout.maths.block_sequence import ALL

NO_SCORES = (
    "{} does not leave its scores before the softmax to be seen, which agcam is made of: attention "
    "is written out, or heads are mixed; use fused attention (in Hugging Face "
    "attn_implementation='sdpa'), or another method, such as gradient_rollout"
)


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one attention call was given: query, key and value, or the probabilities and the value.

    All are (batch, heads, tokens, head_dim), `probabilities` (batch, heads, query, key).
    `compares` is False where no product of queries with keys went into the probabilities,
    `among_channels` is True where it was seen that what is mixed is channels, not tokens.
    """

    module: str
    value: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    mask: Tensor | None = None
    is_causal: bool = False
    scale: float | None = None
    probabilities: Tensor | None = None
    compares: bool = True
    among_channels: bool = False
    edge: GradientEdge | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """How it is computed, in a word or two."""
        return "written out" if self.query is None else "fused"

    @property
    def calls(self) -> tuple["AttentionCall", ...]:
        return (self,)

    @property
    def edges(self) -> tuple[GradientEdge | None, ...]:
        return (self.edge,)

    @property
    def signed(self) -> bool:
        """Whether entries may be negative or rows not sum to 1: heads mixed after the softmax."""
        if self.probabilities is None or self.probabilities.is_meta:
            return False
        rows = self.probabilities.sum(dim=-1)
        off = (rows - 1).abs().max() > 1e-2  # what half precision may cost a row
        return bool(off) or bool((self.probabilities < 0).any())

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, query, key) of the attention."""
        if self.probabilities is not None:
            return tuple(self.probabilities.shape)
        assert self.query is not None and self.key is not None
        return *self.query.shape[:-1], self.key.shape[-2]

    @torch.no_grad()
    def attention(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        """The probabilities, in float32 or better: (batch, heads, query, key)."""
        if self.probabilities is not None:
            return _at_least_float32(self.probabilities[:, heads, queries])
        attention = self.scores(heads, queries).softmax(dim=-1)
        # Fully masked rows are 0, as in `scaled_dot_product_attention`.
        return attention if self.mask is None else attention.nan_to_num(0.0)

    @torch.no_grad()
    def scores(self, heads: slice = ALL, queries: slice = ALL) -> Tensor:
        """What the softmax is taken of, in float32 or better: (batch, heads, query, key).

        Raises:
            UnsupportedNetworkError: the probabilities are all that was recorded.
        """
        if self.query is None or self.key is None:
            raise UnsupportedNetworkError(NO_SCORES.format(self.module))
        query = _at_least_float32(self.query[:, heads, queries])
        key = self._one_per_head(self.key, heads)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        with torch.autocast(query.device.type, enabled=False):
            scores = (query * scale) @ key.mT
        if self.is_causal:
            later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1 + (queries.start or 0))
            scores = scores.masked_fill(later, -math.inf)
        mask = None if self.mask is None else self.mask.expand(self.shape)[:, heads, queries]
        return scores if mask is None else _masked(scores, mask)

    @torch.no_grad()
    def attention_gradient(
        self, *received: Tensor | None, heads: slice = ALL, queries: slice = ALL
    ) -> Tensor:
        """d(score) / d(attention), from d(score) / d(output): (batch, heads, query, key)."""
        (output_gradient,) = received
        if output_gradient is None:  # the score does not depend on this block
            return torch.zeros_like(self.attention(heads, queries))
        # (batch, heads, query, head_dim)
        arrived = output_gradient.reshape(*self.shape[:-1], -1)[:, heads, queries]
        arrived = _at_least_float32(arrived)
        with torch.autocast(arrived.device.type, enabled=False):
            return arrived @ self._one_per_head(self.value, heads).mT

    def _one_per_head(self, shared: Tensor, heads: slice) -> Tensor:
        """Keys or values of the given heads, repeated where several heads share them."""
        repeats = self.shape[1] // shared.shape[1]
        if repeats > 1:
            wanted = range(self.shape[1])[heads]
            return _at_least_float32(shared[:, [head // repeats for head in wanted]])
        return _at_least_float32(shared[:, heads])


def one_head(call: AttentionCall, batch: int) -> AttentionCall:
    """Attention without an axis for heads, (batch, query, key), has one; all other stays."""
    if len(call.shape) != 3 or call.shape[0] != batch:
        return call
    names = ("value", "query", "key", "probabilities", "mask")
    tensors = {name: getattr(call, name) for name in names}
    return replace(
        call,
        **{
            name: one.unsqueeze(1)
            for name, one in tensors.items()
            if one is not None and one.dim() == 3
        },
    )


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """-inf where nobody may look; masks of numbers are added."""
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
