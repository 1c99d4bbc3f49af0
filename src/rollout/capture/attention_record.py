"""What one forward pass left behind: each block's attention, and its gradient on request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rollout.capture.attention_call import AttentionCall
from rollout.capture.blocks import Block, distribution
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.token_layout import Extent


@dataclass(frozen=True)
class Gradients:
    """d(score) / d(attention) of each block, and of the attention that pools them."""

    blocks: BlockSequence
    pooling: BlockSequence


Score = Callable[[Any], Tensor]


@dataclass(frozen=True)
class AttentionRecord:
    """One forward pass: what came out, and the attention of each block.

    Attributes:
        logits: the network's output, detached, (batch, classes); the pooled features of a network
            without a classifier.
        blocks: the attention that forms the token graph, first block first.
        convolution_size: (rows, columns) of the last convolution's output before the first
            attention, which cuts the image into patches; None where there was none.
        convolution_extent: the pixels that this output covers (top, left, bottom, right); it may
            leave a margin of the image out, or reach into padding.
        pooling: attention after the last block, by which the classifier reads the tokens.
        maxima: share of the channels in which each token was the maximum, (batch, tokens), where
            the network takes one after the last block.
        pooled: whether the network made one vector of its tokens; else `logits` is their average.
        output: what the network returned, with its graph where gradients were asked for.
        logits_graph: the logits with their graph; None where no gradients were asked for.
    """

    logits: Tensor
    blocks: tuple[Block, ...]
    convolution_size: tuple[int, int] | None
    convolution_extent: Extent | None = None
    pooling: tuple[AttentionCall, ...] = ()
    maxima: Tensor | None = None
    pooled: bool = True
    output: Any = None
    logits_graph: Tensor | None = None

    def __repr__(self) -> str:
        shape = tuple(self.blocks[0].shape)
        return f"AttentionRecord({len(self.blocks)} blocks; (batch, heads, query, key) = {shape})"

    @property
    def num_tokens(self) -> int:
        return self.blocks[0].shape[-1]

    @property
    def attentions(self) -> BlockSequence:
        """What multiplies each block's values, computed anew at each look.

        Rows are non-negative and sum to 1, except where heads are mixed after the softmax or
        subtracted from one another; see `distributions`.
        """
        return _sequence(self.blocks, [block.attention for block in self.blocks])

    @property
    def distributions(self) -> BlockSequence:
        """The attentions with negatives set to 0 and rows that sum to 1."""
        return _sequence(self.blocks, [partial(distribution, block) for block in self.blocks])

    @property
    def pooling_attentions(self) -> BlockSequence:
        """Attention by which the classifier reads the tokens, (batch, heads, query, key) each."""
        return _sequence(self.pooling, [call.attention for call in self.pooling])

    def gradients(
        self,
        target: int | Sequence[int] | Tensor | None = None,
        *,
        score: Score | None = None,
        retain_graph: bool = True,
    ) -> BlockSequence:
        """d(sum of the target logits) / d(attention) of each block; see `backward`."""
        return self.backward(target, score=score, retain_graph=retain_graph).blocks

    def backward(
        self,
        target: int | Sequence[int] | Tensor | None = None,
        *,
        score: Score | None = None,
        retain_graph: bool = True,
    ) -> Gradients:
        """Gradients of one score per image, by one backward pass.

        Args:
            target: class index, or one per image, (batch,).
            score: instead of a target, a function of what the network returned, -> (batch,).
            retain_graph: False frees the forward pass's memory on the way; no call can follow.
        """
        if self.logits_graph is None:
            raise RuntimeError(
                "recorded without gradients; use record_attention(..., gradients=True)"
            )
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller switched off
            total = self._total(target, score)
        calls = [*self.blocks, *self.pooling]
        edges = [edge for call in calls for edge in call.edges if edge is not None]
        received = iter(
            torch.autograd.grad(total, edges, retain_graph=retain_graph, allow_unused=True)
        )
        gradients = [
            partial(_gradient, call, tuple(next(received) for edge in call.edges if edge))
            for call in calls
        ]
        split = len(self.blocks)
        return Gradients(
            _sequence(self.blocks, gradients[:split]), _sequence(self.pooling, gradients[split:])
        )

    def _total(self, target: int | Sequence[int] | Tensor | None, score: Score | None) -> Tensor:
        """The number that is differentiated: the sum of the images' scores."""
        assert self.logits_graph is not None
        if score is not None:
            scores = score(self.output)
            _check_scores(scores, len(self.logits_graph))
            return scores.sum()
        if target is None:
            raise ValueError("gradients need a target class, or a score function")
        index = torch.as_tensor(target, device=self.logits_graph.device).clone()
        index = index.expand(len(self.logits_graph))
        _check_target(index, classes=self.logits_graph.shape[1])
        return self.logits_graph.gather(1, index[:, None]).sum()


def _sequence(blocks: Sequence[Block], compute: Sequence[Callable[..., Tensor]]) -> BlockSequence:
    return BlockSequence(compute, [block.shape for block in blocks])


def _gradient(call: Block, received: tuple[Tensor | None, ...], heads: slice) -> Tensor:
    return call.attention_gradient(*received, heads=heads)


def _check_target(index: Tensor, classes: int) -> None:
    if index.is_floating_point() or ((index < 0) | (index >= classes)).any():
        raise ValueError(f"target must be in [0, {classes - 1}], got {index.tolist()}")


def _check_scores(scores: object, batch: int) -> None:
    found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if found != (batch,):
        raise ValueError(
            f"score must turn what the network returned into one number per image, ({batch},), "
            f"got {found}"
        )
    assert isinstance(scores, Tensor)
    if not scores.requires_grad:
        raise ValueError("score does not depend on the network's output by way of torch functions")
