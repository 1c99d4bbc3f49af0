"""Attention flow: the maximum flow from the readout to each input token (Abnar & Zuidema, 2020).

The attention of all blocks, residual included, is a network of pipes: from token i above a block to
token j below it leads a pipe as wide as the transition from i to j. A token's flow is the most that
can run from what the classifier reads down to that token. A cut is a set of pipes without which
nothing gets through; the narrowest has exactly the capacity of the maximum flow, so it proves the
value and says where the bottleneck lies.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rollout.maths.checks import check_index
from rollout.maths.evidence import fused_last_first, select_pairs
from rollout.maths.fusion import (
    check_readout,
    discard_lowest,
    fuse_heads,
    select_blocks,
    transition,
)
from rollout.maths.maxflow import TOLERANCE, Bools, Floats, LayeredNetwork
from rollout.settings import HeadFusion, check_discard_ratio, check_head_fusion

# What half precision may cost a row of probabilities; scores and discarded rows are far outside.
ROW_SUM_TOLERANCE = 1e-2


CUTS = ("input", "between", "readout")


@dataclass(frozen=True)
class Flow:
    """The maximum flow to every input token, with the cut that proves it.

    Attributes:
        values: capacity of the narrowest cut before each token, (batch, key), in [0, 1].
        routed: the flow that was found, (batch, key); at most TOLERANCE below `values`, so both are
            the maximum flow to that precision.
        severed: where that cut lies: the capacity it severs in each block, counted from
            `start_block`, then at the readout, (batch, key, blocks + 1); sums to `values`.
        source_side: the cut itself: which tokens are on the readout's side, bool (batch, key,
            blocks + 1, tokens), input tokens first. The edges from True to False are the cut.
        start_block: the block that the first entry of `severed` stands for.
    """

    values: Tensor
    routed: Tensor
    severed: Tensor
    source_side: Tensor
    start_block: int

    @property
    def cut(self) -> Tensor:
        """Which cut binds, (batch, key), as an index into CUTS.

        0, "input": only edges into the token itself, in the first block; 2, "readout": all that the
        classifier reads, the flow is 1; 1, "between": any other.
        """
        elsewhere = self.values[..., None] - self.severed  # (batch, key, blocks + 1)
        binds = torch.ones_like(self.values, dtype=torch.long)
        binds[elsewhere[..., -1] <= TOLERANCE] = CUTS.index("readout")
        binds[elsewhere[..., 0] <= TOLERANCE] = CUTS.index("input")
        return binds

    def describe_cut(self, token: int, image: int = 0) -> str:
        """A token's bottleneck, such as "between: 80% in block 1, 20% in block 2"; block 1 is the
        network's first."""
        check_index("token", token, self.values.shape[1])
        check_index("image", image, len(self.values))
        severed = self.severed[image, token].tolist()
        places = [f"block {self.start_block + block}" for block in range(1, len(severed))] + [
            "the readout"
        ]
        total = max(sum(severed), TOLERANCE)
        shares = [
            f"{capacity / total:.0%} in {place}"
            for capacity, place in zip(severed, places, strict=True)
            if capacity > TOLERANCE
        ]
        return f"{CUTS[self.cut[image, token]]}: {', '.join(shares) or 'nothing gets through'}"


def attention_flow(
    attentions: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> Flow:
    """How much can flow from the readout to each input token: exact, with the cut that proves it.

    Args:
        attentions: one (batch, heads, query, key) tensor per block, first block first; rows sum
            to 1.
        head_fusion: "mean" (the paper), "max" or "min" over the heads.
        discard_ratio: share of each fused matrix's lowest entries set to 0, in [0, 1).
        start_block: the first block that counts; later blocks only make a shallower network.
        readout: distribution over the output tokens that the classifier reads, (tokens,) or
            (batch, tokens); the source feeds each output token with its weight. None reads token 0,
            the class token: unlike rollout, a flow from every output token is as many maps.
        progress: called with the number of input tokens just finished, such as the `update` of a
            progress bar whose total is batch * key; with 0 while blocks are made ready. What it
            raises ends the computation.

    Returns:
        A `Flow`. rollout <= values <= min(1, column sums of the first block's transition).
    """
    check_head_fusion(head_fusion)
    check_discard_ratio(discard_ratio)
    first_last = _fused_blocks(attentions, head_fusion, discard_ratio, start_block)
    return _flow(list(_told(first_last, progress)), start_block, readout, progress)


def gradient_flow(
    attentions: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    readout: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> Flow:
    """How much evidence can flow from the readout to each input token: as `attention_flow`.

    The pipes are those of gradient rollout: attention times gradient, negatives set to 0, with the
    residual, rows made to sum to 1. Evidence that comes by way of other tokens is as much as its
    narrowest pipe lets through, where in rollout it is a product of small numbers.

    Args:
        attentions: one (batch, heads, query, key) tensor per block, first block first.
        gradients: d(score) / d(attention), in the order and shapes of `attentions`.
        head_fusion, discard_ratio, start_block, readout, progress: as in `attention_flow`.

    Returns:
        A `Flow`, exact to TOLERANCE; gradient rollout <= values.
    """
    check_head_fusion(head_fusion)
    check_discard_ratio(discard_ratio)
    pairs = select_pairs(attentions, gradients, start_block)
    last_first = fused_last_first(*pairs, [head_fusion])
    kept = (discard_lowest(fused.detach(), discard_ratio) for (fused,) in last_first)
    return _flow(list(_told(kept, progress))[::-1], start_block, readout, progress)


def _told(blocks: Iterable[Tensor], progress: Callable[[int], object] | None) -> Iterator[Tensor]:
    """The blocks; each is as good a moment to be stopped as a token is."""
    for block in blocks:
        yield block
        if progress is not None:
            progress(0)


def _flow(
    blocks: Sequence[Tensor],
    start_block: int,
    readout: Tensor | None,
    progress: Callable[[int], object] | None,
) -> Flow:
    """Of fused matrices, (batch, query, key) each, first block first."""
    _check_one_size(blocks, start_block)
    sources = _sources(readout, blocks[0])
    flows = []
    for image, source in enumerate(sources):
        each = [transition(fused[[image]].cpu().double()) for fused in _told(blocks, progress)]
        transitions = torch.cat(each).numpy()  # (blocks, query, key)
        flows.append(_flow_of_one_image(transitions, source, progress))
    device, dtype = blocks[0].device, torch.promote_types(blocks[0].dtype, torch.float32)
    values, routed, severed, source_side = (
        torch.from_numpy(np.stack(images)).to(device) for images in zip(*flows, strict=True)
    )
    return Flow(values.to(dtype), routed.to(dtype), severed.to(dtype), source_side, start_block)


def _fused_blocks(
    attentions: Sequence[Tensor], head_fusion: HeadFusion, discard_ratio: float, start_block: int
) -> Iterator[Tensor]:
    """The fused matrix of each block that counts, (batch, query, key)."""
    for block, attention in enumerate(select_blocks(attentions, start_block), start_block):
        _check_attention(attention, block)
        yield discard_lowest(fuse_heads(attention.detach(), head_fusion), discard_ratio)


def _check_one_size(blocks: Sequence[Tensor], start_block: int) -> None:
    for block, fused in enumerate(blocks, start_block):
        if fused.shape != blocks[0].shape:
            raise ValueError(
                f"blocks differ in size: (batch, query, key) is {tuple(blocks[0].shape)} in block "
                f"{start_block} but {tuple(fused.shape)} in block {block}; flow needs one set of "
                "tokens through all blocks"
            )


def _check_attention(attention: Tensor, block: int) -> None:
    """Probabilities after a softmax: square, finite, non-negative, rows that sum to 1."""
    if attention.ndim != 4 or attention.shape[-2] != attention.shape[-1]:
        raise ValueError(
            "attention must be (batch, heads, query, key) with as many queries as keys, "
            f"got shape {tuple(attention.shape)} in block {block}"
        )
    lowest, highest = attention.amin().item(), attention.amax().item()
    if not (lowest >= 0 and highest < math.inf):
        raise ValueError(
            f"attention must be finite and non-negative, got values from {lowest:.4g} to "
            f"{highest:.4g} in block {block}; pass the probabilities after the softmax, not scores "
            "or gradients"
        )
    rows = attention.sum(dim=-1, dtype=torch.float32)
    worst = rows.flatten()[(rows - 1).abs().argmax()].item()
    if abs(worst - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(
            f"rows of attention must sum to 1, one sums to {worst:.4g} in block {block}; pass the "
            "probabilities after the softmax, and leave discarding to discard_ratio"
        )


def _sources(readout: Tensor | None, fused: Tensor) -> Floats:
    """The weights with which the source feeds the output tokens, (batch, tokens)."""
    batch, tokens, _ = fused.shape
    if readout is None:
        readout = torch.eye(1, tokens)[0]
    check_readout(readout, batch, tokens)
    weights = readout.detach().to("cpu", torch.float64)
    return (weights / weights.sum(dim=-1, keepdim=True)).expand(batch, tokens).numpy()


def _flow_of_one_image(
    transitions: Floats, source: Floats, progress: Callable[[int], object] | None
) -> tuple[Floats, Floats, Floats, Bools]:
    """What `Flow` holds, without the batch axis; transitions are (blocks, query, key)."""
    blocks, tokens, _ = transitions.shape
    network = LayeredNetwork(source, transitions[:0:-1], transitions[0])
    values, routed = np.empty(tokens), np.empty(tokens)
    severed = np.empty((tokens, blocks + 1))
    source_side = np.empty((tokens, blocks + 1, tokens), dtype=bool)
    for token in range(tokens):
        cut, routed[token] = network.minimum_cut(token)
        values[token], severed[token] = cut.capacity, cut.severed[::-1]
        # Of the input tokens only the one asked for lies on the sink's side.
        source_side[token, 0] = np.arange(tokens) != token
        source_side[token, 1:] = cut.source_side[::-1]
        if progress is not None:
            progress(1)
    return values, routed, severed, source_side
