"""Maps of one recording whose steps are kept: fuse, discard, chain.

The heads of every block are fused, the lowest entries are discarded, the blocks are chained.
Another ratio repeats the last two steps; other blocks or another patch repeat only the last.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rollout.explanations.dominance import dominances
from rollout.explanations.methods import CHAINED
from rollout.explanations.recording import Recording
from rollout.maths.dominance import Dominance
from rollout.maths.fusion import discard_lowest
from rollout.settings import METHODS, Settings, check_backward, check_method, check_query

MEMORY = 2**28  # bytes of fused matrices that are kept
MOST_TRACED = 400  # patches, of which all maps go to the browser together: 640 kB
MOST_TARGETS = 8  # whose gradients are kept


class Kept:
    """Results by key; beyond `most`, what was used least recently goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._results:
            self._results[key] = compute()
        self._results.move_to_end(key)
        while len(self._results) > self._most:
            self._results.popitem(last=False)
        return self._results[key]


@dataclass
class KeptMaps:
    """The maps of `explain` for one recorded image, each step computed once.

    Attributes:
        recording: of one image.
        progress: is told the share that is done of a map that takes seconds.
        slowest: seconds that the slowest map with gradients took so far.
    """

    recording: Recording
    progress: Callable[[float], None] = lambda share: None
    slowest: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        record = self.recording.record
        entry = 4 * len(record.blocks) * record.num_tokens**2
        self._fused = Kept(max(2, min(8, MEMORY // entry)))
        self._discarded = Kept(2)  # target and rival
        self._maps = Kept(64)
        self._grids = Kept(2)
        self._dominances = Kept(64)

    @property
    def grid_size(self) -> tuple[int, int]:
        return self.recording.layout.grid_size

    @property
    def num_blocks(self) -> int:
        return len(self.recording.record.blocks)

    @property
    def num_heads(self) -> int:
        return min(block.shape[1] for block in self.recording.record.blocks)

    def relevance(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        """The map of `explain` with these settings, (rows, columns) float32."""
        check_method(method)
        followed = target if METHODS[method].gradients else None
        key = (method, followed, settings)
        return self._maps.get(key, lambda: self._timed(method, followed, settings))

    def dominance(self, method: str, target: int | None, settings: Settings) -> Dominance | None:
        """The patch that dominates the map of `relevance`; None where none does."""
        followed = target if METHODS[method].gradients else None

        def maps(settings: Settings) -> Tensor:
            return torch.from_numpy(self.relevance(method, followed, settings))[None]

        def find() -> Dominance | None:
            return dominances(self.recording, maps(settings), method, settings, maps)[0]

        return self._dominances.get((method, followed, settings), find)

    def _timed(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        start = perf_counter()
        relevance = self._relevance(method, target, settings)
        if METHODS[method].gradients:
            self.slowest = max(self.slowest, perf_counter() - start)
        return relevance

    def _relevance(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        self.recording.forget(MOST_TARGETS)
        if settings.legacy or method not in CHAINED:
            return self.recording.relevance(method, target, settings, self.progress)[0].numpy()
        check_backward(settings.backward, method)
        check_query(method, settings.query)
        self.recording.parts(method, target, settings)  # says what is wrong with blocks and head
        blocks = self._blocks(method, target, settings)[settings.start_block : settings.end_block]
        readout = self.recording.readout(settings, method, target)
        last_first = ([block] for block in reversed(blocks))
        relevance = CHAINED[method].walk(last_first, [0.0], [readout])[0, 0]
        return self.recording.layout.to_grid(relevance).float().cpu()[0].numpy()

    def traces(self, method: str, target: int | None, settings: Settings) -> np.ndarray | None:
        """The map of every patch's own tokens at once, (patches, patches) float32.

        Returns:
            None where that takes too long: row by row `relevance` has them, with a query.
        """
        patches = self.recording.layout.num_patches
        traceable = method in CHAINED and METHODS[method].traces
        if not traceable or settings.legacy or patches > MOST_TRACED:
            return None
        followed = target if METHODS[method].gradients else None
        blocks = self._blocks(method, followed, settings)
        blocks = blocks[settings.start_block : settings.end_block]
        last_first = ([block] for block in reversed(blocks))
        rows = CHAINED[method].walk(last_first, [0.0], [None])[0, 0]
        prefix = self.recording.layout.num_prefix_tokens
        return rows[0, prefix:, prefix:].float().cpu().numpy()

    def _blocks(self, method: str, target: int | None, settings: Settings) -> list[Tensor]:
        """Each block's fused matrix without its lowest entries, (1, query, key)."""
        knobs = settings.head_fusion, settings.head, settings.backward
        fused = (CHAINED[method].evidence, target, *knobs)
        ratio = settings.discard_ratio

        def discarded() -> list[Tensor]:
            matrices = self._fused.get(fused, lambda: self._fuse(method, target, settings))
            return [discard_lowest(matrix, ratio) for matrix in matrices]

        return self._discarded.get((fused, ratio), discarded)

    def _fuse(self, method: str, target: int | None, settings: Settings) -> list[Tensor]:
        """The matrix of every block, (1, query, key), first block first."""
        whole = Settings(
            head_fusion=settings.head_fusion, head=settings.head, backward=settings.backward
        )
        fused = self.recording.fused(method, target, whole, [whole.head_fusion])
        return [matrix for (matrix,) in fused][::-1]

    def grid(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        """Each block and head alone, (blocks, heads, rows, columns), as `relevance`."""
        settings = replace(settings, start_block=0, end_block=None, head=None)
        followed = target if METHODS[method].gradients else None
        key = (method, followed, settings)
        return self._grids.get(key, lambda: self._grid(method, followed, settings))

    def _grid(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        maps = [
            self.recording.relevance(method, target, one)
            for block in range(self.num_blocks)
            for head in range(self.num_heads)
            for one in [replace(settings, start_block=block, end_block=block + 1, head=head)]
        ]
        return torch.cat(maps).unflatten(0, (self.num_blocks, self.num_heads)).numpy()
