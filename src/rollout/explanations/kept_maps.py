"""Maps of one recording whose steps are kept: fuse, discard, chain.

The heads of every block are fused, the lowest entries are discarded, the blocks are chained.
Another ratio repeats the last two steps; other blocks or another patch repeat only the last.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rollout.explanations.dominance import dominances
from rollout.explanations.methods import CHAINED
from rollout.explanations.recording import Recording
from rollout.explanations.targets import Chosen
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
        result = self._results.pop(key) if key in self._results else compute()
        self._results[key] = result
        while len(self._results) > self._most:
            self._results.popitem(last=False)
        return result

    def __contains__(self, key: Hashable) -> bool:
        return key in self._results


@contextmanager
def one_thread() -> Iterator[None]:
    """For steps of milliseconds. Torch's threads wait for each other by spinning: where another
    process has one's core, the rest spin until it comes back, and 3 ms become 760."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class KeptMaps:
    """The maps of `explain` for one recorded image, each step computed once.

    Attributes:
        recording: of one image.
        progress: is told the share that is done of a map that takes seconds.
        slowest: seconds that the slowest map with gradients took so far.
        seconds: that the last map of each method took, by method and arithmetic.
    """

    recording: Recording
    progress: Callable[[float], None] = lambda share: None
    slowest: float = field(default=0.0, init=False)
    seconds: dict[tuple[str, bool], float] = field(default_factory=dict, init=False)

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

    def relevance(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        """The map of `explain` with these settings, (rows, columns) float32."""
        check_method(method)
        key = _key(method, target, settings)
        return self._maps.get(key, lambda: self._timed(*key))

    def has(self, method: str, target: Chosen | None, settings: Settings) -> bool:
        """Whether a map is kept, so that `relevance` costs nothing."""
        return _key(method, target, settings) in self._maps

    def takes(self, method: str, settings: Settings) -> float:
        """Seconds that a map takes, as far as one knows; inf for what may take long."""
        if method in CHAINED and not settings.legacy:
            return 0.0
        return self.seconds.get((method, settings.legacy), 0.0 if settings.legacy else float("inf"))

    def prepare(self, method: str, targets: Iterable[Chosen | None], settings: Settings) -> None:
        """Go back through the network for a method that needs it: no work for another thread."""
        if METHODS[method].gradients:
            for target in targets:
                self.recording.backward(target, settings.backward)

    def dominance(self, method: str, target: Chosen | None, settings: Settings) -> Dominance | None:
        """The patch that dominates the map of `relevance`; None where none does."""
        followed = target if METHODS[method].gradients else None

        def maps(settings: Settings) -> Tensor:
            return torch.from_numpy(self.relevance(method, followed, settings))[None]

        def find() -> Dominance | None:
            return dominances(self.recording, maps(settings), method, settings, maps)[0]

        return self._dominances.get((method, followed, settings), find)

    def _timed(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        start = perf_counter()
        relevance = self._relevance(method, target, settings)
        took = self.seconds[method, settings.legacy] = perf_counter() - start
        if METHODS[method].gradients:
            self.slowest = max(self.slowest, took)
        return relevance

    def _relevance(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        self.recording.forget(MOST_TARGETS)
        if settings.legacy or method not in CHAINED:
            return self.recording.relevance(method, target, settings, self.progress)[0].numpy()
        check_backward(settings.backward, method)
        check_query(method, settings.query)
        self.recording.parts(method, target, settings)  # says what is wrong with blocks and head
        blocks = self._blocks(method, target, settings)[settings.start_block : settings.end_block]
        readout = self.recording.readout(settings, method, target)
        last_first = ([block] for block in reversed(blocks))
        with one_thread():
            relevance = CHAINED[method].walk(last_first, [0.0], [readout])[0, 0]
        return self.recording.layout.to_grid(relevance).float().cpu()[0].numpy()

    def traces(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray | None:
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

    def _blocks(self, method: str, target: Chosen | None, settings: Settings) -> list[Tensor]:
        """Each block's fused matrix without its lowest entries, (1, query, key)."""
        knobs = settings.head_fusion, settings.head, settings.backward
        fused = (CHAINED[method].evidence, target, *knobs)
        ratio = settings.discard_ratio

        def discarded() -> list[Tensor]:
            matrices = self._fused.get(fused, lambda: self._fuse(method, target, settings))
            with one_thread():
                return [discard_lowest(matrix, ratio) for matrix in matrices]

        return self._discarded.get((fused, ratio), discarded)

    def _fuse(self, method: str, target: Chosen | None, settings: Settings) -> list[Tensor]:
        """The matrix of every block, (1, query, key), first block first."""
        whole = Settings(
            head_fusion=settings.head_fusion, head=settings.head, backward=settings.backward
        )
        fused = self.recording.fused(method, target, whole, [whole.head_fusion])
        return [matrix for (matrix,) in fused][::-1]

    def grid(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        """Each block and head alone, (blocks, heads, rows, columns), as `relevance`."""
        settings = replace(settings, start_block=0, end_block=None, head=None)
        followed = target if METHODS[method].gradients else None
        key = (method, followed, settings)
        return self._grids.get(key, lambda: self._grid(method, followed, settings))

    def _grid(self, method: str, target: Chosen | None, settings: Settings) -> np.ndarray:
        maps = [
            self.recording.relevance(method, target, one)
            for block in range(self.num_blocks)
            for head in range(self.num_heads)
            for one in [replace(settings, start_block=block, end_block=block + 1, head=head)]
        ]
        return torch.cat(maps).unflatten(0, (self.num_blocks, self.num_heads)).numpy()


def _key(
    method: str, target: Chosen | None, settings: Settings
) -> tuple[str, Chosen | None, Settings]:
    """What decides a map: only methods with gradients depend on the target."""
    return method, target if METHODS[method].gradients else None, settings
