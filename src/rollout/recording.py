"""Images that went through a model once: any number of maps follow without another forward pass."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rollout.layouts import read_readout
from rollout.methods import METHODS, Settings, check_method
from rollout.model import ImageSource, Model
from rollout.models import record_images
from rollout.record import AttentionRecord, Gradients, Score
from rollout.sequences import BlockSequence
from rollout.tokens import TokenLayout


@dataclass(frozen=True)
class Recording:
    """What a model did with some images.

    Attributes:
        model: the model.
        images: what its network took, (batch, channels, height, width).
        record: logits, attentions and gradients.
        layout: where the tokens stand in this pass; sizes may be dynamic.
        keep_graph: False frees the forward pass's memory with the first target's gradients; there
            can be no second target.
        score: what is differentiated instead of a target's logit; see `explain`.
    """

    model: Model
    images: Tensor = field(repr=False)
    record: AttentionRecord
    layout: TokenLayout
    keep_graph: bool = True
    score: Score | None = None
    _gradients: dict[tuple[int, ...] | None, Gradients] = field(default_factory=dict, repr=False)

    @property
    def predicted(self) -> Tensor | None:
        """The class of the highest logit, (batch,); None for a network without a classifier."""
        return self.record.logits.argmax(dim=1) if self.model.num_classes else None

    def gradients(self, target: Tensor | None) -> Gradients:
        """As `AttentionRecord.backward`; one backward pass for each target, however often asked.

        Args:
            target: class indices, (batch,); None for the score.
        """
        if target is None and self.score is None:
            raise ValueError(
                f"{self.model.name} has no classifier, so there is no class to follow; give score="
                ", a function of what the network returns, or use a method without gradients"
            )
        key = None if target is None else tuple(target.tolist())
        if key not in self._gradients:
            score = self.score if target is None else None
            self._gradients[key] = self.record.backward(
                target, score=score, retain_graph=self.keep_graph
            )
        return self._gradients[key]

    def forget(self, most: int) -> None:
        """Drop the gradients of all targets once they are more than `most`, to free memory."""
        if len(self._gradients) > most:
            self._gradients.clear()

    def readout(
        self, settings: Settings, method: str = "attention_rollout", target: Tensor | None = None
    ) -> Tensor:
        """Distribution over the tokens above the last block that counts; sums to 1.

        Returns:
            (tokens,), or (batch, tokens) where the network's pooling depends on the image, and for
            methods with gradients on the target.
        """
        if settings.query is not None:
            return torch.eye(self.layout.num_tokens)[self.layout.token(settings.query)]
        gradients = self.gradients(target) if METHODS[method].gradients else None
        return read_readout(self.layout, self.record, gradients, settings.head_fusion)

    def parts(
        self, method: str, target: Tensor | None, settings: Settings
    ) -> tuple[BlockSequence, BlockSequence | None]:
        """What a method starts from: attentions and, if it has them, gradients; the blocks and the
        head that count."""
        if not METHODS[method].gradients:
            return _select(self.record.distributions, settings), None
        gradients = self.gradients(target).blocks
        return _select(self.record.attentions, settings), _select(gradients, settings)

    def relevance(self, method: str, target: Tensor | None, settings: Settings) -> Tensor:
        """The map of each image on the patch grid, (batch, rows, columns), float32, unscaled.

        Args:
            method: one of METHODS.
            target: class indices, (batch,); only methods with gradients depend on it. None follows
                the recording's score.

        Raises:
            ValueError: a method or setting that makes no sense for this model.
        """
        check_method(method)
        compute = METHODS[method].compute
        if settings.legacy:
            self._check_legacy(method)
            compute = METHODS[method].published or compute
        attentions, gradients = self.parts(method, target, settings)
        readout = self.readout(settings, method, target)
        relevance = compute(attentions, gradients, readout, settings)
        return self.layout.to_grid(relevance).float().cpu()

    def _check_legacy(self, method: str) -> None:
        if METHODS[method].published is None:
            published = [name for name, one in METHODS.items() if one.published]
            raise ValueError(
                f"vit-explain has {' and '.join(published)}, not {method}; use legacy=False"
            )
        if not self.layout.published:
            rows, columns = self.layout.grid_size
            raise ValueError(
                "the arithmetic of vit-explain needs one class token that is read and a square "
                f"patch grid, not {self.layout.num_prefix_tokens} prefix tokens, a grid of {rows} "
                f"x {columns} and pooling {self.layout.pooling!r}; use legacy=False"
            )


def record_model(
    model: Model,
    image: ImageSource,
    *,
    gradients: bool = True,
    keep_graph: bool = True,
    score: Score | None = None,
) -> Recording:
    """Run the model once on an image, or on several.

    Args:
        image: as for `explain`.
        gradients: False is faster and leaner, and leaves the gradient methods out.
        keep_graph: False is leaner, and leaves gradients for one target only.
        score: as for `explain`.
    """
    images = model.images(image)
    record = record_images(model, images, gradients=gradients)
    _check_logits(record.logits)
    return Recording(model, images, record, model.layout_of(record, images), keep_graph, score)


def _select(blocks: BlockSequence, settings: Settings) -> BlockSequence:
    """The blocks and the head that count."""
    start, end = settings.start_block, settings.end_block
    end = len(blocks) if end is None else end
    if not isinstance(start, int) or not 0 <= start < len(blocks):
        raise ValueError(
            f"start_block must be in [0, {len(blocks) - 1}] for {len(blocks)} blocks, got {start!r}"
        )
    if not isinstance(end, int) or not start < end <= len(blocks):
        raise ValueError(
            f"end_block must be in [{start + 1}, {len(blocks)}] for {len(blocks)} blocks, the first"
            f" being {start}; got {end!r}"
        )
    blocks = blocks[start:end]
    return blocks if settings.head is None else blocks.one_head(settings.head)


def _check_logits(logits: Tensor) -> None:
    broken = [index for index, row in enumerate(logits.isfinite().all(dim=1).tolist()) if not row]
    if broken:
        raise ValueError(
            f"the network's output is not finite (NaN or infinite) for image {broken}; check the "
            "weights and the image's values, or use float32 instead of half precision"
        )
