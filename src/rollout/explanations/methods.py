"""The arithmetic of each method in METHODS: from attentions and gradients to a row of relevance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rollout.maths.flow import attention_flow
from rollout.maths.fusion import discard_each
from rollout.maths.legacy import (
    check_legacy_fusion,
    legacy_attention_rollout,
    legacy_gradient_rollout,
    through_softmax,
)
from rollout.maths.rollout import chain, read_rows
from rollout.settings import Settings

Attentions = Sequence[Tensor]
# (fused matrices, last block first, one per fusion; ratios; a readout per fusion)
#     -> (fusions, ratios, batch, tokens)
Chained = Callable[[Iterable[Sequence[Tensor]], Sequence[float], Sequence[Tensor]], Tensor]
Progress = Callable[[float], object] | None  # is told the share that is done


@dataclass(frozen=True)
class Parts:
    """What a map is made of: attentions, gradients where the method has them, and the readout."""

    attentions: Attentions
    gradients: Attentions | None
    readout: Tensor


Whole = Callable[[Parts, Settings, Progress], Tensor]  # -> (batch, tokens)


def _last_block(
    fused_last_first: Iterable[Sequence[Tensor]],
    discard_ratios: Sequence[float],
    readouts: Sequence[Tensor],
) -> Tensor:
    """What the readout attends to in the last block alone: no residual, no depth."""
    pairs = zip(next(iter(fused_last_first)), readouts, strict=True)
    rows = [
        torch.stack([read_rows(readout, kept) for kept in discard_each(fused, discard_ratios)])
        for fused, readout in pairs
    ]
    return torch.stack(rows)


def _attention_flow(parts: Parts, settings: Settings, progress: Progress) -> Tensor:
    """A bar of progress over the tokens, for maps that take more than a second."""
    batch, _, tokens, _ = parts.attentions[0].shape
    total, hidden = batch * tokens, progress is not None
    with tqdm(
        total=total, desc="attention flow", unit="token", delay=1, leave=False, disable=hidden
    ) as bar:
        done = 0

        def count(finished: int) -> None:
            nonlocal done
            before, done = done, done + finished
            bar.update(finished)
            if progress is not None and 20 * done // total > 20 * before // total:
                progress(done / total)

        flow = attention_flow(
            parts.attentions,
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


# Methods that fuse the heads of each block and discard the lowest entries before anything else.
CHAINED: Mapping[str, Chained] = {
    "raw_attention": _last_block,
    "attention_rollout": chain,
    "gradient_rollout": chain,
}
WHOLE: Mapping[str, Whole] = {"attention_flow": _attention_flow}
LEGACY: Mapping[str, Whole] = {
    "attention_rollout": _legacy_attention_rollout,
    "gradient_rollout": _legacy_gradient_rollout,
}
