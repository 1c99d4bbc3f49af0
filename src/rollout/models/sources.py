"""Where a network's weights come from: a file, the hub, or nowhere; and what to know of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

from rollout.errors import shown
from rollout.models.checkpoints import Checkpoint
from rollout.models.fit import fill
from rollout.models.networks import create, create_pretrained


@dataclass(frozen=True)
class Found:
    """A network, the labels that its file gives, and sentences that its user should read."""

    network: nn.Module
    labels: Sequence[str] | None = None
    notes: tuple[str, ...] = ()


def create_network(
    name: str,
    file: Checkpoint | None,
    *,
    pretrained: bool,
    weights: str | None,
    options: Mapping[str, Any],
) -> Found:
    """A timm network with the weights of a file, pretrained ones, or random ones.

    Args: as those of `models.load_model`.
    """
    options = {key: value for key, value in options.items() if value is not None}  # as timm does
    if file is not None:
        filled = fill(name, file, options, weights)
        labels, notes = _labels_in(file, filled.network)
        return Found(filled.network, labels, (*filled.notes, *_contradiction(name, file), *notes))
    if weights is not None:
        raise ValueError(
            f"weights={shown(weights)} chooses among those of a file; give checkpoint="
        )
    if not pretrained:
        return Found(create(name, options))
    network = create_pretrained(name, options)
    return Found(network, notes=tuple(_random_classifier(name, network)))


def named_in(file: Checkpoint) -> str:
    """The architecture that a checkpoint names, where the user named none."""
    if file.architecture is None or not _is_known(file.architecture):
        raise ValueError(
            "the demo model takes no checkpoint and no options; name an architecture "
            f"(--model): {file.path} names none that timm knows"
        )
    return file.architecture


def _random_classifier(name: str, network: Any) -> list[str]:
    """timm leaves a classifier of another number of classes random, without a word."""
    classes = getattr(network, "num_classes", 0)
    trained = (getattr(network, "pretrained_cfg", None) or {}).get("num_classes", classes)
    if not classes or classes == trained:
        return []
    return [
        f"the classifier of {classes} classes has random weights: {name!r} was trained on "
        f"{trained}, so predictions and maps of a class mean nothing until it is fine-tuned; leave "
        "num_classes out, or give checkpoint="
    ]


def _labels_in(file: Checkpoint, network: Any) -> tuple[Sequence[str] | None, list[str]]:
    classes = getattr(network, "num_classes", 0)
    if file.labels is None or not classes or len(file.labels) == classes:
        return file.labels if classes else None, []
    return None, [
        f"{file.path} names {len(file.labels)} classes, its classifier has {classes}: the names "
        "are not used"
    ]


def _contradiction(name: str, file: Checkpoint) -> list[str]:
    said = file.architecture
    if said is None or not _is_known(said) or said.split(".")[0] == name.split(".")[0]:
        return []
    return [f"{file.path} says that its weights are of {said!r}; they were loaded as {name!r}"]


def _is_known(name: str) -> bool:
    return timm.is_model(name.split(".")[0])
