"""Images that went through a model once: any number of maps follow without another forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rollout.capture.attention_record import AttentionRecord, Gradients, Score
from rollout.capture.own_scores import own_score_gradients
from rollout.explanations.methods import CHAINED, LEGACY, WHOLE, Part, Parts, Progress
from rollout.explanations.selection import select
from rollout.explanations.targets import Chosen, chosen_classes, find_targets
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.fused_block import FusedBlock
from rollout.maths.token_layout import TokenLayout
from rollout.models.model import ImageSource, Model, Target, check_model
from rollout.models.readout import check_own_scores, read_readout
from rollout.settings import (
    DEFAULTS,
    METHODS,
    Backward,
    HeadFusion,
    Settings,
    check_backward,
    check_method,
    check_query,
)


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
        recorded: for which backward pass the record was made. The first map of another one costs
            another forward pass, whose graph is kept beside.
    """

    model: Model
    images: Tensor = field(repr=False)
    record: AttentionRecord
    layout: TokenLayout
    keep_graph: bool = True
    score: Score | None = None
    recorded: Backward = "plain"
    _others: dict[Backward, AttentionRecord] = field(default_factory=dict, repr=False)
    _gradients: dict[tuple[str, Backward, tuple[Chosen, ...] | None], Gradients] = field(
        default_factory=dict, repr=False
    )

    @property
    def predicted(self) -> Tensor | None:
        """The class of the highest logit, (batch,); None for a network without a classifier."""
        return self.record.logits.argmax(dim=1) if self.model.num_classes else None

    def target_indices(self, target: Target = None) -> Tensor | None:
        """The class index of each image, (batch,), of a target as `explain` takes it.

        Returns:
            Where sets of classes are meant, which they are: bool (batch, classes). For None the
            predicted classes; None where a score is followed, or there is no class.
        """
        found = find_targets(self.model, target, self.score, len(self.images))
        return self.predicted if found is None and self.score is None else found

    def backward(self, target: Target = None, backward: Backward = "plain") -> Gradients:
        """As `AttentionRecord.backward`; one backward pass for each target, however often asked.

        Args:
            backward: as in `Settings`.
        """
        indices = self._followed(target)
        key = ("answer", backward, None if indices is None else chosen_classes(indices))
        if key not in self._gradients:
            self._gradients[key] = self._record_for(backward).backward(
                indices, score=self.score, retain_graph=self.keep_graph
            )
        return self._gradients[key]

    def _followed(self, target: Target) -> Tensor | None:
        """`target_indices`; None where a score is followed."""
        indices = self.target_indices(target)
        if indices is None and self.score is None:
            raise ValueError(
                f"{self.model.name} has no classifier, so there is no class to follow; give score="
                ", a function of what the network returns, or use a method without gradients"
            )
        return indices

    def _record_for(self, backward: Backward) -> AttentionRecord:
        """Its logits and attentions are the same for all; its gradients are not."""
        if backward == self.recorded or self.record.logits_graph is None:
            return self.record
        if backward not in self._others:
            self._others[backward] = self.model.record(self.images, backward=backward)
        return self._others[backward]

    def forget(self, most: int) -> None:
        """Drop the gradients of all targets once they are more than `most`, to free memory."""
        if len(self._gradients) > most:
            self._gradients.clear()

    def readout(
        self, settings: Settings, method: str = "attention_rollout", target: Target = None
    ) -> Tensor:
        """Distribution over the tokens above the last block that counts; sums to 1.

        Returns:
            (tokens,), or (batch, tokens) where the network's pooling depends on the image, and for
            methods with gradients on the target.
        """
        if settings.query is not None:
            return torch.eye(self.layout.num_tokens)[self.layout.token(settings.query)]
        follows = METHODS[method].gradients
        gradients = self.backward(target, settings.backward) if follows else None
        return read_readout(self.layout, self.record, gradients, settings.head_fusion)

    def parts(
        self, method: str, target: Target, settings: Settings
    ) -> tuple[BlockSequence, BlockSequence | None]:
        """What a method starts from: attentions and, if it has them, gradients; the blocks and the
        head that count."""
        if not METHODS[method].gradients:
            return select(self.record.distributions, settings), None
        gradients = self.backward(target, settings.backward).blocks
        return select(self.record.attentions, settings), select(gradients, settings)

    def fused(
        self,
        method: str,
        target: Target,
        settings: Settings,
        head_fusions: Sequence[HeadFusion],
    ) -> Iterator[FusedBlock]:
        """What a method of CHAINED puts together: (batch, query, key) for each fusion, last block
        first; the blocks and the head that count."""
        evidence = CHAINED[method].evidence
        blocks = [
            select(self._blocks(part, target, settings.backward), settings)
            for part in evidence.parts
        ]
        return evidence.fused(blocks, self.layout, head_fusions)

    def _blocks(self, part: Part, target: Target, backward: Backward) -> BlockSequence:
        if part == "gradients":
            return self.backward(target, backward).blocks
        if part == "own_gradients":
            return self._own_gradients(target, backward).blocks
        return getattr(self.record, part)

    def _own_gradients(self, target: Target, backward: Backward) -> Gradients:
        """Of each block's own score: another pass, see `own_score_gradients`."""
        check_own_scores(self.model.name, self.layout)
        indices = self._followed(target)
        key = ("own", backward, None if indices is None else chosen_classes(indices))
        if key not in self._gradients:
            self._gradients[key] = own_score_gradients(
                self.model.network, self.images, self.record, indices, self.score, backward
            )
        return self._gradients[key]

    def relevance(
        self,
        method: str,
        target: Target = None,
        settings: Settings = DEFAULTS,
        progress: Progress = None,
    ) -> Tensor:
        """The map of each image on the patch grid, (batch, rows, columns), float32, unscaled.

        Args:
            method: one of METHODS.
            target: as for `explain`; only methods with gradients depend on it.
            progress: is told the share that is done of a map that takes seconds.

        Raises:
            ValueError: a method or setting that makes no sense for this model.
        """
        fusions, ratios = [settings.head_fusion], [settings.discard_ratio]
        return self.relevances(method, target, settings, fusions, ratios, progress)[0, 0]

    def relevances(
        self,
        method: str,
        target: Target,
        settings: Settings,
        head_fusions: Sequence[HeadFusion],
        discard_ratios: Sequence[float],
        progress: Progress = None,
    ) -> Tensor:
        """`relevance` with each fusion and ratio: (fusions, ratios, batch, rows, columns).

        Where the method allows it, each block's attention is computed once for all of them.
        """
        check_method(method)
        check_backward(settings.backward, method)
        check_query(method, settings.query)
        if settings.legacy:
            self._check_legacy(method)
        if settings.legacy or method not in CHAINED:
            rows = [
                torch.stack([self._alone(method, target, one, progress) for one in row])
                for row in _grid(settings, head_fusions, discard_ratios)
            ]
            return self._on_grid(torch.stack(rows))
        fused = self.fused(method, target, settings, head_fusions)
        readouts = [
            self.readout(replace(settings, head_fusion=head_fusion), method, target)
            for head_fusion in head_fusions
        ]
        return self._on_grid(CHAINED[method].walk(fused, discard_ratios, readouts))

    def _alone(self, method: str, target: Target, settings: Settings, progress: Progress) -> Tensor:
        """(batch, tokens), by arithmetic that shares nothing between settings."""
        compute = LEGACY[method] if settings.legacy else WHOLE[method]
        readout = self.readout(settings, method, target)
        parts = Parts(*self.parts(method, target, settings), readout)
        return compute(parts, settings, progress)

    def _on_grid(self, relevance: Tensor) -> Tensor:
        """(fusions, ratios, batch, tokens) -> (fusions, ratios, batch, rows, columns)."""
        maps = self.layout.to_grid(relevance.flatten(0, 2)).float().cpu()
        return maps.unflatten(0, relevance.shape[:3])

    def _check_legacy(self, method: str) -> None:
        if not METHODS[method].legacy:
            names = [name for name, one in METHODS.items() if one.legacy]
            raise ValueError(
                f"vit-explain has {' and '.join(names)}, not {method}; use legacy=False"
            )
        if not self.layout.fits_legacy:
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
    backward: Backward = "plain",
) -> Recording:
    """Run the model once on an image, or on several.

    Args:
        image: as for `explain`.
        gradients: False is faster and leaner, and leaves the gradient methods out.
        keep_graph: False is leaner, and leaves gradients for one target only.
        score: as for `explain`.
        backward: which of them settings will mostly ask for; another one costs another pass.
    """
    check_model(model)
    return record_prepared(
        model,
        model.images(image),
        gradients=gradients,
        keep_graph=keep_graph,
        score=score,
        backward=backward,
    )


def record_prepared(
    model: Model,
    images: Tensor,
    *,
    gradients: bool = True,
    keep_graph: bool = True,
    score: Score | None = None,
    backward: Backward = "plain",
    first: int = 0,
) -> Recording:
    """`record_model` of what `Model.images` made.

    Args:
        first: the number of the first image among those that the user gave, for messages.
    """
    record = model.record(images, gradients=gradients, backward=backward)
    _check_logits(record.logits, first)
    layout = model.layout_of(record, images)
    return Recording(model, images, record, layout, keep_graph, score, backward)


def _grid(
    settings: Settings, head_fusions: Sequence[HeadFusion], discard_ratios: Sequence[float]
) -> list[list[Settings]]:
    return [
        [replace(settings, head_fusion=fusion, discard_ratio=ratio) for ratio in discard_ratios]
        for fusion in head_fusions
    ]


def _check_logits(logits: Tensor, first: int) -> None:
    finite = logits.isfinite().all(dim=1).tolist()
    broken = [index for index, row in enumerate(finite, first) if not row]
    if broken:
        raise ValueError(
            f"the network's output is not finite (NaN or infinite) for image {broken}; check the "
            "weights and the image's values, or use float32 instead of half precision"
        )
