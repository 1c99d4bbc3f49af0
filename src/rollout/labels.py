"""Names of classes: from a model's own tables to the index that a person meant."""

from collections.abc import Sequence
from difflib import get_close_matches

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn


def imagenet_labels(network: nn.Module) -> tuple[str, ...] | None:
    """timm's descriptions of the ImageNet classes the network was trained on; None for another task."""
    subset = infer_imagenet_subset(network)
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else None


def class_index(target: int | str, labels: Sequence[str] | None, num_classes: int) -> int:
    """The index of a class given by index or by label.

    A label is found by its whole description, one of its comma-separated names, or the last word of
    exactly one of them ("tabby" or "cat"), whatever the case; a number in a string is an index.

    Raises:
        ValueError: out of range, unknown (with suggestions), or the name of several classes.
    """
    if isinstance(target, bool) or not isinstance(target, int | str):
        raise ValueError(f"target must be a class index or a label, got {target!r}")
    if isinstance(target, int) or target.strip().lstrip("+-").isdigit():
        return _in_range(int(target), num_classes)
    if labels is None:
        raise ValueError(
            f"this model has no labels to look {target!r} up in; give an index in [0, {num_classes - 1}]"
        )
    for names in (_descriptions, _synonyms, _last_words):
        found = sorted({index for name, index in names(labels) if name == target.strip().lower()})
        if len(found) == 1:
            return found[0]
        if found:
            several = "; ".join(f"{index}: {labels[index]}" for index in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise ValueError(f"{target!r} names several classes ({several}{more}); give an index")
    raise ValueError(f"unknown class {target!r}; {_suggestion(target, labels)}")


def _in_range(index: int, num_classes: int) -> int:
    if not 0 <= index < num_classes:
        raise ValueError(f"class index must be in [0, {num_classes - 1}], got {index}")
    return index


def _descriptions(labels: Sequence[str]) -> list[tuple[str, int]]:
    return [(label.lower(), index) for index, label in enumerate(labels)]


def _synonyms(labels: Sequence[str]) -> list[tuple[str, int]]:
    return [
        (name.strip().lower(), index)
        for index, label in enumerate(labels)
        for name in label.split(",")
    ]


def _last_words(labels: Sequence[str]) -> list[tuple[str, int]]:
    return [(name.split()[-1], index) for name, index in _synonyms(labels) if name]


def _suggestion(target: str, labels: Sequence[str]) -> str:
    names = dict(_synonyms(labels))
    close = get_close_matches(target.strip().lower(), names, n=4, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"{name!r} ({names[name]})" for name in close) + "?"
    examples = ", ".join(labels[:12])
    return f"the labels are {examples}" + (", ..." if len(labels) > 12 else "")
