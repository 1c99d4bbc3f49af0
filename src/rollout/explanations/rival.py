"""The class to compare a target with: by default the likeliest other one."""

from rollout.explanations.recording import Recording


def target_and_rival(
    recording: Recording, target: int | str | None = None, rival: int | str | None = None
) -> tuple[int, int]:
    """Two class indices for the first image of a recording.

    Args:
        target: class index or label; None is the predicted class.
        rival: the other class; None is the likeliest one that is not the target.

    Raises:
        ValueError: an unknown class, or a network with fewer than two classes.
    """
    model = recording.model
    if model.num_classes < 2:
        raise ValueError(
            f"{model.name} has {model.num_classes} classes, and a comparison needs two"
        )
    likely = recording.record.logits[0].argsort(descending=True).tolist()
    first = likely[0] if target is None else model.class_index(target)
    others = [index for index in likely if index != first]
    return first, others[0] if rival is None else model.class_index(rival)
