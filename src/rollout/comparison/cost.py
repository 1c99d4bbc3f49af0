"""What each map costs, in forward passes of the bare network timed in the same rounds."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import pandas as pd
import torch
from torch import Tensor

from rollout.capture.kept_tokens import answer
from rollout.comparison.candidates import Candidate, relevance
from rollout.explanations.recording import record_prepared
from rollout.models.model import Model


def costs(
    model: Model, images: Tensor, candidates: Sequence[Candidate], *, rounds: int = 5
) -> pd.DataFrame:
    """CPU time from the images to one map of one target, as a multiple of a forward pass.

    Recording and backward pass are included: it is what one map alone costs. Rounds are
    interleaved, and ratios are taken within a round, so that whatever else runs matters little.

    Args:
        images: what the network takes, (batch, channels, height, width).

    Returns:
        Columns method, setting, forward_passes: the median over the rounds.
    """
    target = torch.zeros(len(images), dtype=torch.long)

    def make(one: Candidate) -> None:
        recording = record_prepared(
            model,
            images,
            gradients=one.gradients,
            keep_graph=False,
            backward=one.settings.backward,
        )
        relevance(recording, one, target if one.gradients else None)

    ratios: list[list[float]] = [[] for _ in candidates]
    for number in range(rounds + 1):  # the first warms up
        for one, found in zip(candidates, ratios, strict=True):
            bare = _seconds(lambda: answer(model.network, images))
            ratio = _seconds(lambda one=one: make(one)) / bare  # type: ignore[misc]
            if number:
                found.append(ratio)
    return pd.DataFrame(
        {
            "method": [one.method for one in candidates],
            "setting": [one.setting for one in candidates],
            "forward_passes": [median(found) for found in ratios],
        }
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
