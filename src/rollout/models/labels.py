"""Names of classes: from a model's own tables to the index that a person meant."""

from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

import numpy as np
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from rollout.errors import shown
from rollout.maths.checks import check_real


def known_labels(network: nn.Module, num_classes: int) -> tuple[str, ...] | None:
    """Those in the configuration of Hugging Face or timm, else ImageNet's where timm says so."""
    named = getattr(getattr(network, "config", None), "id2label", None) or _timm_labels(network)
    labels = tuple(_text(named[index]) for index in sorted(named))
    if num_classes and len(labels) == num_classes and labels[0] != "LABEL_0":
        return labels
    return imagenet_labels(network, num_classes) if num_classes else None


def _timm_labels(network: nn.Module) -> dict[int, str]:
    """The label names in a configuration of timm, described where it describes them."""
    config = _timm_configuration(network)
    names = config.get("label_names")
    if not isinstance(names, list | tuple):
        return {}
    described = config.get("label_descriptions")
    described = described if isinstance(described, dict) else {}
    return {
        index: str(described.get(name, name) if isinstance(name, str | int) else name)
        for index, name in enumerate(names)
    }


def _timm_configuration(network: nn.Module) -> dict[str, Any]:
    config = getattr(network, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def _text(name: object) -> str:
    """As text that files and tables can hold: half a surrogate pair becomes a question mark."""
    return str(name).encode(errors="replace").decode()


def as_labels(labels: object) -> tuple[str, ...]:
    """Labels as a user gives them: a list, or a table from each index to its label.

    Raises:
        TypeError, ValueError: a text, or a table that leaves classes without a label.
    """
    if isinstance(labels, Mapping):
        numbers = {int(key): name for key, name in labels.items() if str(key).isdecimal()}
        if sorted(numbers) != list(range(len(labels))):
            raise ValueError(
                "labels must be a list, or a table with the keys 0, 1, 2, ... of all classes; got "
                f"the keys {list(labels)[:6]}"
            )
        labels = [numbers[index] for index in range(len(numbers))]
    if isinstance(labels, str) or not isinstance(labels, Sequence | np.ndarray):
        raise TypeError(f"labels must be a list with one label per class, got {shown(labels)}")
    return tuple(map(_text, labels))


def imagenet_labels(network: nn.Module, num_classes: int) -> tuple[str, ...] | None:
    """timm's descriptions of the ImageNet classes that the network tells apart, or None."""
    told_apart = getattr(network, "num_classes", None) or _timm_configuration(network).get(
        "num_classes"
    )
    subset = infer_imagenet_subset({"num_classes": told_apart})
    labels = tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()
    return labels if len(labels) == num_classes else None  # fewer outputs: its head was taken off


def class_index(
    target: int | Integral | str, labels: Sequence[str] | None, num_classes: int
) -> int:
    """The index of a class given by index or by label.

    A label is found by its whole description, one of its comma-separated names, or the last word of
    exactly one of them ("tabby" or "cat"), whatever the case; a number in a string is an index.

    Raises:
        ValueError: out of range, unknown (with suggestions), or the name of several classes.
    """
    if isinstance(target, bool) or not isinstance(target, Integral | str):
        raise ValueError(f"target must be a class index or a label, got {shown(target)}")
    if not isinstance(target, str) or target.strip().removeprefix("-").isdecimal():
        return _in_range(int(target), num_classes)
    if labels is None:
        raise ValueError(
            f"this model has no labels to look {shown(target)} up in; "
            f"give an index in [0, {num_classes - 1}]"
        )
    for names in (_descriptions, _synonyms, _last_words):
        found = sorted({index for name, index in names(labels) if name == target.strip().lower()})
        if len(found) == 1:
            return found[0]
        if found:
            several = "; ".join(f"{index}: {labels[index]}" for index in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise ValueError(
                f"{shown(target)} names several classes ({several}{more}); give an index"
            )
    raise ValueError(f"unknown class {shown(target)}; {_suggestion(target, labels)}")


def class_indices(
    target: Any, labels: Sequence[str] | None, num_classes: int, batch: int
) -> list[int | frozenset[int]]:
    """The class of each image of a batch, or its classes, from one target for all or one for each.

    Args:
        target: an index or a label, a set of them, or a pattern such as "*cat*"; or a list, array
            or tensor with one of them per image, also a mask of classes, bool (batch, classes).

    Raises:
        ValueError: as `class_index`, or a number of targets that is not that of the images.
    """
    if isinstance(target, Tensor):
        check_real("target", target)
    if isinstance(target, Tensor) and target.dtype == torch.bool and target.dim() == 2:
        target = [set(row.nonzero()[:, 0].tolist()) for row in target]
    target = target.tolist() if hasattr(target, "tolist") else target  # tensors and arrays
    targets = list(target) if isinstance(target, list | tuple) else [target] * batch
    if len(targets) != batch:
        raise ValueError(
            f"got {len(targets)} targets for {batch} images; give one for each, or one"
        )
    return [_classes(item, labels, num_classes) for item in targets]


def _classes(target: Any, labels: Sequence[str] | None, num_classes: int) -> int | frozenset[int]:
    """One class, or several that are one target."""
    if isinstance(target, Set):
        found = {class_index(one, labels, num_classes) for one in target}
        if not found:
            raise ValueError("target is an empty set; give at least one class")
    elif is_pattern(target, labels):
        found = {index for name, index in _names(labels) if fnmatchcase(name, target.lower())}
        if not found:
            raise ValueError(
                f"no label is like {shown(target)}; {_suggestion(target, labels or ())}"
            )
    else:
        return class_index(target, labels, num_classes)
    return frozenset(found) if len(found) > 1 else found.pop()


def is_pattern(target: object, labels: Sequence[str] | None) -> bool:
    """Whether it stands for the labels that are like it, "*" being any text and "?" any letter."""
    if labels is None or not isinstance(target, str) or not {"*", "?"} & set(target):
        return False
    return target.strip().lower() not in dict(_names(labels))


def _names(labels: Sequence[str] | None) -> list[tuple[str, int]]:
    return [*_descriptions(labels or ()), *_synonyms(labels or ())]


MOST_JOINED = 4


def joined(names: Sequence[str]) -> str:
    """Such as "tabby or tiger cat"; of many the first few, and how many more."""
    if len(names) <= MOST_JOINED:
        return " or ".join(names)
    return f"{' or '.join(names[: MOST_JOINED - 1])} or {len(names) - MOST_JOINED + 1} more"


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
