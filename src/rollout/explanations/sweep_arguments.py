"""What a sweep is given: its axes, each in order and without doubles, and one recorded image."""

from collections.abc import Collection, Sequence, Set
from itertools import product

from rollout.errors import shown
from rollout.explanations.recording import Recording, record_prepared
from rollout.explanations.targets import Chosen, chosen_classes
from rollout.models.model import ImageSource, Model, OneTarget
from rollout.settings import (
    METHODS,
    Backward,
    HeadFusion,
    Settings,
    check_list,
    check_method,
    is_index,
)


def check_axes(
    methods: Sequence[str],
    head_fusions: Sequence[HeadFusion],
    discard_ratios: Sequence[float],
    targets: Sequence[OneTarget] | None,
) -> None:
    axes = {"methods": methods, "head_fusions": head_fusions, "discard_ratios": discard_ratios}
    for name, values in {**axes, "targets": [0] if targets is None else targets}.items():
        if name == "targets" and isinstance(values, Set):
            raise ValueError(
                f"targets must be a list, got {shown(values)}; write [{shown(values)}]"
            )
        check_list(name, values)
    for method in methods:
        check_method(method)
    for head_fusion, discard_ratio in product(head_fusions, discard_ratios):
        Settings(head_fusion, discard_ratio)
    for name, values in axes.items():
        _check_distinct(name, values)


def first_blocks(start_block: int, start_blocks: Sequence[int] | None) -> list[int]:
    """The axis of first blocks, in order and without doubles."""
    if start_blocks is None:
        return [start_block]
    if start_block != 0:
        raise ValueError(
            f"give start_block or start_blocks, not both; got {shown(start_block)} and "
            f"{shown(start_blocks)}"
        )
    check_list("start_blocks", start_blocks)
    if not all(map(is_index, start_blocks)):
        raise ValueError(f"start_blocks must be block numbers, got {shown(start_blocks)}")
    _check_distinct("start_blocks", start_blocks)
    return list(start_blocks)


def record_targets(
    model: Model,
    image: ImageSource | Recording,
    methods: Sequence[str],
    targets: Sequence[OneTarget] | None,
    backward: Backward = "plain",
) -> tuple[Recording, Sequence[Chosen | None]]:
    """The recording, and the targets as class indices or sets of them; [None] follows its score."""
    chosen = None if targets is None else _classes(model, targets)
    several = chosen is not None and len(chosen) > 1
    gradients = any(METHODS[method].gradients for method in methods)
    if isinstance(image, Recording):
        recording = image
        _check_recording(model, recording, gradients, several)
    else:
        images = model.images(image)
        _check_one(len(images))
        recording = record_prepared(
            model, images, gradients=gradients, keep_graph=several, backward=backward
        )
    if chosen is not None:
        return recording, chosen
    predicted = recording.predicted if recording.score is None else None
    return recording, [None] if predicted is None else predicted.tolist()


def _classes(model: Model, targets: Sequence[OneTarget]) -> list[Chosen]:
    """Each target's class, or its set of classes."""
    chosen = list(chosen_classes(model.class_indices(list(targets), len(targets))))
    _check_distinct("targets", chosen)
    return chosen


def _check_recording(model: Model, recording: Recording, gradients: bool, several: bool) -> None:
    _check_one(len(recording.images))
    if recording.model is not model:
        raise ValueError(f"the recording is of another model, {recording.model.name}; pass that")
    if gradients and (
        recording.record.logits_graph is None or (several and not recording.keep_graph)
    ):
        raise ValueError(
            "the recording keeps too little for gradients of these targets; make it with "
            "record_model(model, image, gradients=True, keep_graph=True)"
        )


def _check_distinct(name: str, values: Collection[object]) -> None:
    seen = list(values)
    twice = [value for place, value in enumerate(seen) if value in seen[:place]]
    if twice:
        raise ValueError(f"{name} has {shown(twice[0])} twice; give each once")


def _check_one(images: int) -> None:
    if images != 1:
        raise ValueError(f"a sweep is of one image, got {images}; call it for each")
