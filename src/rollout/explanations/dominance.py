"""Which patch dominates each map of a recording, where it enters, and what takes it away."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from rollout.explanations.methods import CHAINED
from rollout.explanations.recording import Recording
from rollout.maths.dominance import Dominance, attention_received, find_dominance, trace_back
from rollout.settings import Settings

# Methods whose blocks read what those above them read, and that are quick enough to be asked again.
CHAINING = tuple(name for name, method in CHAINED.items() if method.chains)


def dominances(
    recording: Recording,
    maps: Tensor,
    method: str,
    settings: Settings,
    again: Callable[[Settings], Tensor],
) -> tuple[Dominance | None, ...]:
    """What dominates each map; None where nothing does, or where a patch is traced on purpose.

    Args:
        maps: (batch, rows, columns), of this method and these settings.
        again: the maps with other settings; called only where a patch dominates.
    """
    if settings.query is not None:
        return (None,) * len(maps)
    found = [find_dominance(one.numpy()) for one in maps]
    if method not in CHAINING or not any(found):
        return tuple(found)
    num_blocks = settings.end_block or len(recording.record.blocks)
    return tuple(
        one
        and trace_back(
            one,
            _drawn(recording, index, recording.layout.token(one.patch), settings),
            recording.layout.num_tokens,
            settings.start_block,
            num_blocks,
            partial(_without, again, settings, index),
        )
        for index, one in enumerate(found)
    )


def _without(
    again: Callable[[Settings], Tensor], settings: Settings, index: int, start_block: int
) -> np.ndarray:
    return again(replace(settings, start_block=start_block))[index].numpy()


def _drawn(recording: Recording, index: int, token: int, settings: Settings) -> Iterator[float]:
    """The share of all attention that a token draws in each block that counts, first to last."""
    attentions, _ = recording.parts("attention_rollout", None, settings)
    for attention in attentions:
        yield float(attention_received(attention[index : index + 1]).mean(dim=1)[0, token])
