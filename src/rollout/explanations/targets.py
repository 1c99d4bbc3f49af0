"""Which classes an explanation follows: one of each image, or a set of them."""

from torch import Tensor

from rollout.capture.attention_record import Score
from rollout.errors import shown
from rollout.models.model import Model, Target

Chosen = int | frozenset[int]


def chosen_classes(indices: Tensor) -> tuple[Chosen, ...]:
    """Of each image the class, or the set of classes: (batch,), or bool (batch, classes)."""
    if indices.dim() == 1:
        return tuple(indices.tolist())
    sets = [frozenset(row.nonzero()[:, 0].tolist()) for row in indices]
    return tuple(min(one) if len(one) == 1 else one for one in sets)


def find_targets(model: Model, target: Target, score: Score | None, batch: int) -> Tensor | None:
    """The classes of a target that was given, as `Model.class_indices`; None where none was.

    Raises:
        ValueError: an unknown class, as many targets as nobody asked for, or a score beside it.
    """
    if target is None:
        return None
    if score is not None:
        raise ValueError(f"give a target or a score, not both; got target={shown(target)}")
    return model.class_indices(target, batch)
