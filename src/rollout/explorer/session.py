"""One image that went through a model once, and every number that the explorer shows of it.

A map is computed in three steps, and each step's results are kept: the heads of every block are
fused, the lowest entries are discarded, the blocks are chained. A move of the discard slider
repeats the last two, a step through the blocks or to another patch only the last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from rollout.explorer.kept import Kept
from rollout.flow import attention_flow
from rollout.fusion import discard_lowest
from rollout.methods import METHODS, Settings, check_method
from rollout.metrics import mass_on_object
from rollout.model import Model
from rollout.recording import Recording
from rollout.rollout import attention_rollout, fused_last_first

# Methods whose blocks are fused and discarded before anything else, and what is done then.
CHAINED = {
    "raw_attention": "raw_attention",
    "attention_rollout": "attention_rollout",
    "gradient_rollout": "attention_rollout",  # of evidence instead of attention
}
MEMORY = 2**28  # bytes of fused matrices that a session keeps
MOST_TRACED = 400  # patches, of which all maps go to the browser together: 640 kB
MOST_TARGETS = 8  # whose gradients it keeps


@dataclass
class Session:
    """What the explorer knows of one model and one image.

    Attributes:
        recording: of one image.
        coverage: the answer key: label to the share of each patch, (rows, columns); {} without one.
        progress: is told the share that is done of a map that takes seconds.
        slowest: seconds that the slowest map with gradients took so far.
    """

    recording: Recording
    coverage: Mapping[str, Tensor] = field(default_factory=dict)
    progress: Callable[[float], None] = lambda share: None
    slowest: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        record = self.recording.record
        entry = 4 * len(record.blocks) * record.num_tokens**2
        self._fused = Kept(max(2, min(8, MEMORY // entry)))
        self._discarded = Kept(2)  # target and rival
        self._maps = Kept(64)
        self._grids = Kept(2)

    @property
    def model(self) -> Model:
        return self.recording.model

    @property
    def grid_size(self) -> tuple[int, int]:
        return self.recording.layout.grid_size

    @property
    def num_blocks(self) -> int:
        return len(self.recording.record.blocks)

    @property
    def num_heads(self) -> int:
        return min(block.shape[1] for block in self.recording.record.blocks)

    @property
    def logits(self) -> np.ndarray:
        """(classes,); empty for a network without a classifier."""
        classes = self.model.num_classes
        return self.recording.record.logits[0, :classes].float().cpu().numpy()

    @property
    def predicted(self) -> int | None:
        """The class of the highest logit; None without a classifier."""
        predicted = self.recording.predicted
        return None if predicted is None else int(predicted)

    @property
    def probabilities(self) -> np.ndarray:
        """(classes,)."""
        if not self.model.num_classes:
            return np.zeros(0, np.float32)
        return self.model.probabilities(self.recording.record.logits)[0].cpu().numpy()

    def label(self, target: int | None) -> str:
        return "" if target is None else self.model.label(target)

    def short_label(self, target: int | None) -> str:
        """The first of the synonyms that ImageNet's labels list."""
        return self.label(target).split(",")[0]

    def picture(self) -> np.ndarray:
        """The image as the network saw it, (height, width, 3) in [0, 1]."""
        return self.model.pictures(self.recording.images)[0].numpy()

    def relevance(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        """The map of `explain` with these settings, (rows, columns) float32."""
        check_method(method)
        followed = target if METHODS[method].gradients else None
        key = (method, followed, settings)
        return self._maps.get(key, lambda: self._timed(method, followed, settings))

    def _timed(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        start = perf_counter()
        relevance = self._relevance(method, target, settings)
        if METHODS[method].gradients:
            self.slowest = max(self.slowest, perf_counter() - start)
        return relevance

    def _relevance(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        index = self._index(target)
        if method == "attention_flow" and not settings.legacy:
            return self._flow(settings)
        if settings.legacy or method not in CHAINED:
            return self.recording.relevance(method, index, settings)[0].numpy()
        self.recording.parts(method, index, settings)  # says what is wrong with blocks and head
        blocks = self._blocks(method, target, settings)[settings.start_block : settings.end_block]
        readout = self.recording.readout(settings, method, index)
        relevance = METHODS[CHAINED[method]].compute(blocks, None, readout, Settings())
        return self.recording.layout.to_grid(relevance).float().cpu()[0].numpy()

    def traces(self, method: str, target: int | None, settings: Settings) -> np.ndarray | None:
        """The map of every patch's own tokens at once, (patches, patches) float32.

        Returns:
            None where that takes too long: row by row `relevance` has them, with a query.
        """
        patches = self.recording.layout.num_patches
        if method not in CHAINED or settings.legacy or patches > MOST_TRACED:
            return None
        followed = target if METHODS[method].gradients else None
        blocks = self._blocks(method, followed, settings)
        blocks = blocks[settings.start_block : settings.end_block]
        rows = blocks[-1][:, 0] if method == "raw_attention" else attention_rollout(blocks)
        prefix = self.recording.layout.num_prefix_tokens
        return rows[0, prefix:, prefix:].float().cpu().numpy()

    def _flow(self, settings: Settings) -> np.ndarray:
        attentions, _ = self.recording.parts("attention_flow", None, settings)
        done, total = 0, self.recording.layout.num_tokens

        def count(tokens: int) -> None:
            nonlocal done
            before, done = done, done + tokens
            if 20 * done // total > 20 * before // total:
                self.progress(done / total)

        flow = attention_flow(
            attentions,
            head_fusion=settings.head_fusion,
            discard_ratio=settings.discard_ratio,
            readout=self.recording.readout(settings),
            progress=count,
        )
        return self.recording.layout.to_grid(flow.values).float().cpu()[0].numpy()

    def _blocks(self, method: str, target: int | None, settings: Settings) -> list[Tensor]:
        """Each block's fused matrix without its lowest entries, (1, 1, query, key)."""
        fused = (METHODS[method].gradients, target, settings.head_fusion, settings.head)
        ratio = settings.discard_ratio

        def discarded() -> list[Tensor]:
            matrices = self._fused.get(fused, lambda: self._fuse(method, target, settings))
            return [discard_lowest(matrix, ratio).unsqueeze(1) for matrix in matrices]

        return self._discarded.get((fused, ratio), discarded)

    def _fuse(self, method: str, target: int | None, settings: Settings) -> list[Tensor]:
        """The matrix of every block, (1, query, key), first block first."""
        whole = Settings(head_fusion=settings.head_fusion, head=settings.head)
        attentions, gradients = self.recording.parts(method, self._index(target), whole)
        return list(fused_last_first(attentions, gradients, whole.head_fusion))[::-1]

    def _index(self, target: int | None) -> Tensor | None:
        """The target as recordings take it."""
        if target is None:
            return self.recording.predicted
        index = torch.tensor([target], device=self.recording.record.logits.device)
        self.recording.forget(MOST_TARGETS)
        return index

    def grid(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        """Each block and head alone, (blocks, heads, rows, columns), as `relevance`."""
        settings = replace(settings, start_block=0, end_block=None, head=None)
        followed = target if METHODS[method].gradients else None
        key = (method, followed, settings)
        return self._grids.get(key, lambda: self._grid(method, followed, settings))

    def _grid(self, method: str, target: int | None, settings: Settings) -> np.ndarray:
        index = self._index(target)
        alone = [
            replace(settings, start_block=block, end_block=block + 1, head=head)
            for block in range(self.num_blocks)
            for head in range(self.num_heads)
        ]
        maps = [self.recording.relevance(method, index, one)[0].numpy() for one in alone]
        return np.stack(maps).reshape(self.num_blocks, self.num_heads, *self.grid_size)

    def shares(self, relevance: np.ndarray) -> dict[str, tuple[float, float]]:
        """Of each object in the answer key: its share of the map's mass, and of the image."""
        mass = torch.from_numpy(relevance)[None]
        return {
            label: (mass_on_object(mass, covered[None]).item(), covered.mean().item())
            for label, covered in self.coverage.items()
        }
