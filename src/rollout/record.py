"""What one forward pass left behind: each block's attention, and its gradient on request.

Kept are the queries, keys and values of each attention call. From those

    attention          P = softmax(q k^T * scale + mask)
    its gradient      dP = dO v^T,  because the call's output is O = P v

are computed when asked for, one block at a time: no (tokens x tokens) matrix enters the graph.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import overload

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

ALL_HEADS = slice(None)

# What is computed at a time: 8 MiB in float32. A whole block of 1370 tokens is 45 MiB, and fetching
# that much fresh memory from the system takes longer than filling it.
GROUP_ENTRIES = 2**21


class BlockSequence(Sequence[Tensor]):
    """One (batch, heads, query, key) tensor per block, first block first, computed when indexed.

    Args:
        blocks: compute the given heads of each block.
        shapes: (batch, heads, query, key) of each block.
    """

    def __init__(
        self, blocks: Sequence[Callable[[slice], Tensor]], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self._blocks = tuple(blocks)
        self._shapes = tuple(shapes)

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "BlockSequence": ...
    def __getitem__(self, index: int | slice) -> "Tensor | BlockSequence":
        if isinstance(index, slice):
            return BlockSequence(self._blocks[index], self._shapes[index])
        return self._blocks[index](ALL_HEADS)

    def head_groups(self, index: int) -> Iterator[Tensor]:
        """One block a few heads at a time, (batch, some heads, query, key), first heads first."""
        batch, heads, query, key = self._shapes[index]
        size = max(1, GROUP_ENTRIES // (batch * query * key))
        for first in range(0, heads, size):
            yield self._blocks[index](slice(first, first + size))

    def one_head(self, head: int) -> "BlockSequence":
        """The blocks with one of their heads alone, (batch, 1, query, key) each."""
        heads = min(shape[1] for shape in self._shapes)
        if not isinstance(head, int) or not 0 <= head < heads:
            raise ValueError(f"head must be in [0, {heads - 1}] for {heads} heads, got {head!r}")
        alone = [_one_head(block, head) for block in self._blocks]
        return BlockSequence(alone, [(shape[0], 1, *shape[2:]) for shape in self._shapes])

    def __repr__(self) -> str:
        return f"BlockSequence({len(self)} blocks, computed when indexed)"


def _one_head(block: Callable[[slice], Tensor], head: int) -> Callable[[slice], Tensor]:
    return lambda _: block(slice(head, head + 1))


@dataclass(frozen=True)
class AttentionCall:
    """What one attention call was given: query, key and value, or the probabilities and the value.

    All are (batch, heads, tokens, head_dim), `probabilities` (batch, heads, query, key).
    """

    module: str
    value: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    mask: Tensor | None = None
    is_causal: bool = False
    scale: float | None = None
    probabilities: Tensor | None = None
    edge: GradientEdge | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, query, key) of the attention."""
        if self.probabilities is not None:
            return tuple(self.probabilities.shape)
        assert self.query is not None and self.key is not None
        return *self.query.shape[:-1], self.key.shape[-2]

    @torch.no_grad()
    def attention(self, heads: slice = ALL_HEADS) -> Tensor:
        """The probabilities, in float32 or better: (batch, heads, query, key)."""
        if self.probabilities is not None:
            return _at_least_float32(self.probabilities[:, heads])
        assert self.query is not None and self.key is not None
        query, key = _at_least_float32(self.query[:, heads]), self._one_per_head(self.key, heads)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        with torch.autocast(query.device.type, enabled=False):
            scores = (query * scale) @ key.transpose(-2, -1)
        mask = None if self.mask is None else self.mask.expand(self.shape)[:, heads]
        return _softmax(scores, mask, self.is_causal)

    @torch.no_grad()
    def attention_gradient(
        self, output_gradient: Tensor | None, heads: slice = ALL_HEADS
    ) -> Tensor:
        """d(score) / d(attention), from d(score) / d(output): (batch, heads, query, key)."""
        if output_gradient is None:  # the score does not depend on this block
            return torch.zeros_like(self.attention(heads))
        received = output_gradient.reshape(*self.shape[:-1], -1)  # (batch, heads, query, head_dim)
        received = _at_least_float32(received[:, heads])
        with torch.autocast(received.device.type, enabled=False):
            return received @ self._one_per_head(self.value, heads).transpose(-2, -1)

    def _one_per_head(self, shared: Tensor, heads: slice) -> Tensor:
        """Keys or values of the given heads, repeated where several heads share them."""
        repeats = self.shape[1] // shared.shape[1]
        if repeats > 1:
            shared = shared.repeat_interleave(repeats, dim=1)
        return _at_least_float32(shared[:, heads])


@dataclass(frozen=True)
class AttentionRecord:
    """One forward pass: what came out, and the attention of each block.

    Attributes:
        logits: the network's output, detached, (batch, classes).
        blocks: the attention calls that form the token graph, first block first.
        convolution_size: (rows, columns) of the last convolution's output before the first
            attention, which cuts the image into patches; None where there was none.
    """

    logits: Tensor
    blocks: tuple[AttentionCall, ...]
    convolution_size: tuple[int, int] | None
    output: Tensor | None = field(default=None, repr=False)

    @property
    def num_tokens(self) -> int:
        return self.blocks[0].shape[-1]

    @property
    def attentions(self) -> BlockSequence:
        """Probabilities of each block; rows sum to 1. Each look computes them anew."""
        return BlockSequence([block.attention for block in self.blocks], self._shapes)

    def gradients(
        self, target: int | Sequence[int] | Tensor, *, retain_graph: bool = True
    ) -> BlockSequence:
        """d(sum of the target logits) / d(attention) of each block, by one backward pass.

        Args:
            target: class index, or one per image, (batch,).
            retain_graph: False frees the forward pass's memory on the way; no call can follow.
        """
        if self.output is None:
            raise RuntimeError(
                "recorded without gradients; use record_attention(..., gradients=True)"
            )
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller switched off
            index = torch.as_tensor(target, device=self.output.device).clone()
            index = index.expand(len(self.output))
            _check_target(index, classes=self.output.shape[1])
            score = self.output.gather(1, index[:, None]).sum()
        edges = [block.edge for block in self.blocks if block.edge is not None]
        received = torch.autograd.grad(score, edges, retain_graph=retain_graph, allow_unused=True)
        return BlockSequence(
            [
                partial(block.attention_gradient, gradient)
                for block, gradient in zip(self.blocks, received, strict=True)
            ],
            self._shapes,
        )

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [block.shape for block in self.blocks]


def _check_target(index: Tensor, classes: int) -> None:
    if index.is_floating_point() or ((index < 0) | (index >= classes)).any():
        raise ValueError(f"target must be in [0, {classes - 1}], got {index.tolist()}")


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _softmax(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Softmax over the keys as `scaled_dot_product_attention` does it; fully masked rows are 0."""
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    if mask is not None:
        masked = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return masked.softmax(dim=-1).nan_to_num(0.0)
    return scores.softmax(dim=-1)
