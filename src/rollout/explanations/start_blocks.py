"""How a map comes about: leave the early blocks out, and let one more in at a time."""

from dataclasses import replace

import numpy as np

from rollout.explanations.recording import Recording
from rollout.models.model import Target
from rollout.settings import DEFAULTS, Settings


def relevance_by_start_block(
    recording: Recording, method: str, target: Target = None, settings: Settings = DEFAULTS
) -> dict[str, np.ndarray]:
    """The first image's map from each block up, the last block alone first.

    Returns:
        "from block 6 up" and so on to (rows, columns) float32, unscaled; blocks count from 1.
    """
    starts = reversed(range(settings.start_block, len(recording.record.blocks)))
    return {
        f"from block {start + 1} up": recording.relevance(
            method, target, replace(settings, start_block=start)
        )[0].numpy()
        for start in starts
    }
