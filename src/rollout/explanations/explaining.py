"""The way in: `explain` takes a model and images, and returns their explanation."""

from dataclasses import replace

from rollout.capture.attention_record import Score
from rollout.explanations.explanation import Explanation
from rollout.explanations.recording import record_prepared
from rollout.explanations.targets import find_targets
from rollout.models.model import ImageSource, Model, Target, check_model
from rollout.models.preprocess import check_one_size
from rollout.settings import (
    METHODS,
    Backward,
    HeadFusion,
    Settings,
    check_backward,
    check_count,
    check_method,
)

BATCH = 8  # images that run together: a large network needs some 300 MB for each


def explain(
    model: Model,
    image: ImageSource,
    *,
    method: str | None = None,
    target: Target = None,
    score: Score | None = None,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    start_block: int = 0,
    end_block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    legacy: bool = False,
    backward: Backward = "plain",
    batch_size: int | None = None,
) -> Explanation:
    """Show what the model looked at in an image.

    Args:
        model: from `load_model` or `wrap_model`.
        image: a path, a PIL image, an array, a sample's name or what else `load_image` opens, a
            list of them, or a tensor (batch, channels, height, width) that is normalised as the
            network expects.
        method: one of METHODS; None is gradient rollout, or attention rollout for a network without
            a classifier.
        target: class index or label; a set of them, or a pattern of labels such as "*cat*", for the
            sum of their logits; a list has one of these per image; None takes the predicted class.
        score: what to follow instead of a class: a function of what the network returned, ->
            (batch,), such as the similarity of an image's features to those of a text. For
            legrad_per_block it is called with the rows of all blocks, (blocks * batch,).
        head_fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each block's lowest fused attention to leave out, in [0, 1).
        start_block, end_block: the blocks that count, as in a slice; None is the network's end.
        head: one head alone; None fuses all.
        query: the patch (row, column) whose tokens are traced back; None is what the classifier
            reads.
        legacy: the arithmetic of vit-explain as it was published, faults included.
        backward: how a method with gradients takes them: "plain" is the derivative, "libra" the
            rules of LibraGrad and CP-LRP, by which relevance is conserved on its way back.
        batch_size: how many images run together, which decides the memory; by default 8, with a
            score all of them, because it may hold something for each.

    Raises:
        TypeError: the model is none, such as a bare network or a name.
        ValueError: a setting, image or target that makes no sense, named in the message.
    """
    check_model(model)
    if method is None:
        follows = bool(model.num_classes) or score is not None
        method = "gradient_rollout" if follows else "attention_rollout"
    check_method(method)
    settings = Settings(
        head_fusion, discard_ratio, start_block, end_block, head, query, legacy, backward
    )
    check_backward(backward, method)
    sources = model.sources(image)
    chosen = find_targets(model, target, score, len(sources))  # before anything is computed
    size = _batch_size(batch_size, len(sources), score)
    gradients = METHODS[method].gradients
    parts: list[Explanation] = []
    for first in range(0, len(sources), size):
        images, hidden = model.prepare(sources[first : first + size])
        check_one_size([part.pictures.shape[1:3] for part in parts[:1]] + [images.shape[2:]])
        recording = record_prepared(
            model,
            images,
            gradients=gradients,
            keep_graph=False,
            score=score,
            backward=backward,
            first=first,
        )
        targets = None if chosen is None else chosen[first : first + size]
        part = Explanation.of(recording, method, targets, settings)
        parts.append(replace(part, hidden=hidden))
    return Explanation.joined(parts)


def _batch_size(asked: int | None, images: int, score: Score | None) -> int:
    if asked is None:
        return images if score is not None else BATCH
    return check_count("batch_size", asked)
