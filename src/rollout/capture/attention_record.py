"""What one forward pass left behind: each block's attention, and its gradient on request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rollout.capture.answer import Answer
from rollout.capture.attention_call import AttentionCall
from rollout.capture.blocks import Block, DifferentialAttention, distribution
from rollout.errors import UnsupportedNetworkError, shown
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.checks import check_real
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
        answer: the linear layer that made the logits; None where none did, as for features.
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
    answer: Answer | None = None

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
    def has_scores(self) -> bool:
        """Whether queries and keys were recorded; not where attention is written out, or heads are
        mixed or subtracted."""
        subtracted = any(isinstance(block, DifferentialAttention) for block in self.blocks)
        calls = [call for block in self.blocks for call in block.calls]
        return not subtracted and all(call.query is not None for call in calls)

    @property
    def scores(self) -> BlockSequence:
        """What each block's softmax is taken of, computed anew at each look.

        Raises:
            UnsupportedNetworkError: when looked at, if not `has_scores`.
        """
        return _sequence(self.blocks, [block.scores for block in self.blocks])

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

        Recorded with backward="libra", the attention P passes nothing on to queries and keys, and
        dP = dO v^T is what the score would gain from it by the rules above: the sum of P * dP over
        heads and queries is the relevance that a token gave as a value.

        Args:
            target: class index, or one per image, (batch,), or the classes whose logits are added
                up, bool (batch, classes).
            score: instead of a target, a function of what the network returned, -> (batch,).
            retain_graph: False frees the forward pass's memory on the way; no call can follow.
        """
        if self.logits_graph is None:
            raise ValueError(
                "recorded without gradients; use record_attention(..., gradients=True)"
            )
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller switched off
            total = self._total(target, score)
        no_gradient = _NO_GRADIENT if score is None else f"{_NO_SCORE}, or {_NO_GRADIENT}"
        if not total.requires_grad:
            raise UnsupportedNetworkError(no_gradient)
        calls = [*self.blocks, *self.pooling]
        edges = [edge for call in calls for edge in call.edges if edge is not None]
        arrived = torch.autograd.grad(total, edges, retain_graph=retain_graph, allow_unused=True)
        if all(one is None for one in arrived[: sum(len(block.edges) for block in self.blocks)]):
            raise UnsupportedNetworkError(no_gradient)
        received = iter(arrived)
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
        return (self.logits_graph * _chosen(target, self.logits_graph)).sum()


def _sequence(blocks: Sequence[Block], compute: Sequence[Callable[..., Tensor]]) -> BlockSequence:
    return BlockSequence(compute, [block.shape for block in blocks])


def _gradient(
    call: Block, received: tuple[Tensor | None, ...], heads: slice, queries: slice
) -> Tensor:
    return call.attention_gradient(*received, heads=heads, queries=queries)


_NO_SCORE = "score does not depend on the network's output by way of torch functions"
_NO_GRADIENT = (
    "no gradient reaches the attention: after the blocks the network detaches what it computed, or "
    "goes on in integers or without gradients; take that out (a head on detached features can be "
    "given the features themselves), or use a method that needs none, such as attention_rollout"
)


def _chosen(target: Any, logits: Tensor) -> Tensor:
    """Which logits are summed, (batch, classes): one for each image, or the True of a mask."""
    batch, classes = logits.shape
    try:
        index = torch.as_tensor(target, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"target must be a class index, or one per image; got {shown(target)}"
        ) from error
    check_real("target", index)
    if index.dtype == torch.bool and tuple(index.shape) == (batch, classes):
        return index.to(logits)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"target must be a class index, or one per image; got {shown(target)}")
    if index.dim() > 1 or index.numel() not in (1, batch):
        raise ValueError(
            f"got {index.numel()} targets for {batch} images; give one for each, or one"
        )
    if ((index < 0) | (index >= classes)).any():
        raise ValueError(f"target must be in [0, {classes - 1}], got {index.tolist()}")
    return torch.nn.functional.one_hot(index.long().expand(batch), classes).to(logits)


def _check_scores(scores: object, batch: int) -> None:
    found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if found != (batch,):
        raise ValueError(
            f"score must turn what the network returned into one number per image, ({batch},), "
            f"got {found}"
        )
    assert isinstance(scores, Tensor)
    check_real("score", scores)
    if not scores.isfinite().all():
        raise ValueError(f"score must be a finite number for each image, got {scores.tolist()}")
    if not scores.requires_grad:
        raise ValueError(_NO_SCORE)
