"""The arithmetic of each method in METHODS: from attentions and gradients to a row of relevance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rollout.maths.evidence import Entries, evidence_last_first, fused_last_first
from rollout.maths.flow import Flow, attention_flow, gradient_flow
from rollout.maths.fused_block import FusedBlock
from rollout.maths.legacy import (
    check_legacy_fusion,
    legacy_attention_rollout,
    legacy_gradient_rollout,
    through_softmax,
)
from rollout.maths.relevance import (
    gated_gradient,
    positive_gradient,
    positive_product,
    weighted_attention,
)
from rollout.maths.rollout import chain, read_rows
from rollout.maths.token_layout import TokenLayout
from rollout.maths.walks import Walk, accumulate, add_rows, last_block, mean_columns
from rollout.settings import HeadFusion, Settings

Attentions = Sequence[Tensor]
Part = Literal["distributions", "attentions", "gradients", "own_gradients", "scores"]
Progress = Callable[[float], object] | None  # is told the share that is done


@dataclass(frozen=True)
class Parts:
    """What a map is made of: attentions, gradients where the method has them, and the readout."""

    attentions: Attentions
    gradients: Attentions | None
    readout: Tensor


Whole = Callable[[Parts, Settings, Progress], Tensor]  # -> (batch, tokens)


@dataclass(frozen=True)
class Evidence:
    """What the heads of a block are asked for before they are fused.

    Attributes:
        parts: what of a record it is made of.
        entries: from some heads of each part, (batch, heads, query, key), to the same shape; None
            is attention as it is.
        of_patches: whether `entries` is told `num_prefix_tokens`.
    """

    parts: tuple[Part, ...]
    entries: Entries | None = None
    of_patches: bool = False

    def fused(
        self,
        sequences: Sequence[Sequence[Tensor]],
        layout: TokenLayout,
        head_fusions: Sequence[HeadFusion],
    ) -> Iterator[FusedBlock]:
        """Block by block, last block first: a matrix for each fusion, non-negative."""
        if self.entries is None:
            return fused_last_first(sequences[0], None, head_fusions)
        told = {"num_prefix_tokens": layout.num_prefix_tokens} if self.of_patches else {}
        return evidence_last_first(sequences, partial(self.entries, **told), head_fusions)


@dataclass(frozen=True)
class Chained:
    """A method that fuses heads, discards the lowest entries, and walks from block to block."""

    evidence: Evidence
    walk: Walk

    @property
    def chains(self) -> bool:
        """Whether a block reads what the one above it reads: depth mixes the tokens."""
        return self.walk in (chain, accumulate)


def _attention_flow(parts: Parts, settings: Settings, progress: Progress) -> Tensor:
    return _flow(partial(attention_flow, parts.attentions), parts, settings, progress)


def _gradient_flow(parts: Parts, settings: Settings, progress: Progress) -> Tensor:
    assert parts.gradients is not None
    solve = partial(gradient_flow, parts.attentions, parts.gradients)
    return _flow(solve, parts, settings, progress)


def _flow(
    solve: Callable[..., Flow], parts: Parts, settings: Settings, progress: Progress
) -> Tensor:
    """A bar of progress over the tokens, for maps that take more than a second."""
    batch, _, tokens, _ = parts.attentions[0].shape
    total, hidden = batch * tokens, progress is not None
    with tqdm(total=total, desc="flow", unit="token", delay=1, leave=False, disable=hidden) as bar:
        done = 0

        def count(finished: int) -> None:
            nonlocal done
            before, done = done, done + finished
            bar.update(finished)
            told = finished == 0 or 100 * done // total > 100 * before // total
            if progress is not None and told:
                progress(done / total)

        flow = solve(
            head_fusion=settings.head_fusion,
            discard_ratio=settings.discard_ratio,
            readout=parts.readout,
            progress=count,
        )
    return flow.values


def _legacy_attention_rollout(parts: Parts, settings: Settings, progress: Progress) -> Tensor:
    knobs = settings.head_fusion, settings.discard_ratio
    return read_rows(parts.readout, legacy_attention_rollout(parts.attentions, *knobs))


def _legacy_gradient_rollout(parts: Parts, settings: Settings, progress: Progress) -> Tensor:
    assert parts.gradients is not None
    check_legacy_fusion(settings.head_fusion)
    pairs = zip(parts.attentions, parts.gradients, strict=True)
    scores = [through_softmax(attention, gradient) for attention, gradient in pairs]
    rollout = legacy_gradient_rollout(parts.attentions, scores, settings.discard_ratio)
    return read_rows(parts.readout, rollout)


ATTENTION = Evidence(("distributions",))
PRODUCT = Evidence(("attentions", "gradients"), torch.mul)

# Methods that fuse the heads of each block and discard the lowest entries before anything else.
CHAINED: Mapping[str, Chained] = {
    "raw_attention": Chained(ATTENTION, last_block),
    "attention_rollout": Chained(ATTENTION, chain),
    "gradient_rollout": Chained(PRODUCT, chain),
    "first_order": Chained(PRODUCT, add_rows),
    "generic_relevance": Chained(
        Evidence(("attentions", "gradients"), positive_product), accumulate
    ),
    "attention_gradcam": Chained(
        Evidence(("attentions", "gradients"), weighted_attention, of_patches=True), last_block
    ),
    "agcam": Chained(Evidence(("scores", "gradients"), gated_gradient), add_rows),
    "legrad": Chained(Evidence(("gradients",), positive_gradient), mean_columns),
    "legrad_per_block": Chained(Evidence(("own_gradients",), positive_gradient), mean_columns),
}
WHOLE: Mapping[str, Whole] = {"attention_flow": _attention_flow, "gradient_flow": _gradient_flow}
LEGACY: Mapping[str, Whole] = {
    "attention_rollout": _legacy_attention_rollout,
    "gradient_rollout": _legacy_gradient_rollout,
}
