"""What a network's output means: logits, probabilities, or values; classes, or features."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import field_of
from rollout.errors import shown
from rollout.maths.checks import check_tensor

# One class of several (softmax); that after the network's own softmax or sigmoid; several classes
# at once (a sigmoid each); numbers that are no probabilities, such as a regression's.
Outputs = Literal["logits", "probabilities", "multi_label", "value"]
OUTPUTS: tuple[Outputs, ...] = get_args(Outputs)

_NO_CLASSIFIER = ("proj", "pool")  # in the name of a last linear layer that makes features

_PROBLEMS: Mapping[Any, Outputs] = {  # Hugging Face's
    "multi_label_classification": "multi_label",
    "single_label_classification": "logits",
    "regression": "value",
}


def classifies(network: nn.Module, record: AttentionRecord) -> bool:
    """Whether the network returns a value per class; backbones and towers return features.

    That is so where a last linear layer made them, whatever timm's `num_classes` says: the head may
    have been taken off or put on since, and features may be as many as classes.
    """
    output, width = record.output, record.logits.shape[-1]
    if isinstance(output, list | tuple) and output:
        output = output[0]  # as `record_attention` takes it
    classes = getattr(network, "num_classes", None)
    if classes == 0 and isinstance(classes, int):
        return False
    if not isinstance(output, Tensor):
        return field_of(output, "logits") is not None
    if output.dim() != 2 or type(network).__module__.startswith("open_clip."):
        return False
    if record.answer is not None:
        last_names = record.answer.module.split(".")[-2:]
        return not any(word in name for word in _NO_CLASSIFIER for name in last_names)
    return classes == width and isinstance(classes, int) and not _headless(network)


def _headless(network: nn.Module) -> bool:
    """Whether timm's classifier was taken off, or nobody knows it."""
    own = getattr(network, "get_classifier", None)
    return own is None or isinstance(own(), nn.Identity)


def read_outputs(described: nn.Module, record: AttentionRecord, num_classes: int) -> Outputs:
    """What is known of the output; "value" where nothing is.

    Args:
        described: the network, or the one within it that has a configuration.
    """
    if not num_classes:
        return "value"
    made = None if record.answer is None else record.answer.activation
    if made in ("softmax", "sigmoid"):
        return "probabilities" if num_classes > 1 or made == "sigmoid" else "value"
    problem = getattr(getattr(described, "config", None), "problem_type", None)
    if made is None and problem in _PROBLEMS:
        return _PROBLEMS[problem]
    known = record.answer is not None or _declares(described, num_classes)
    plain = made in (None, "log_softmax")  # the softmax of a log_softmax is the softmax
    return "logits" if known and plain and num_classes > 1 else "value"


def _declares(described: nn.Module, num_classes: int) -> bool:
    """timm's word, or Hugging Face's."""
    config = getattr(described, "config", None)
    return num_classes in (
        getattr(described, "num_classes", None),
        getattr(config, "num_labels", None),
    )


def check_outputs(outputs: object, num_classes: int) -> None:
    if not isinstance(outputs, str) or outputs not in OUTPUTS:
        raise ValueError(f"outputs must be one of {', '.join(OUTPUTS)}; got {shown(outputs)}")
    if outputs == "logits" and num_classes == 1:
        raise ValueError(
            "the softmax of a single output is always 1; give outputs='multi_label' for the logit "
            "of a yes or no, 'probabilities' for its probability, 'value' for a regression"
        )


def probabilities(logits: Tensor, outputs: Outputs) -> Tensor:
    """(batch, classes) in [0, 1], or NaN where the outputs are no probabilities."""
    check_tensor("logits", logits, "batch, classes")
    logits = logits.float()
    if outputs == "value":
        return logits * math.nan
    if outputs == "probabilities":
        return logits
    return logits.sigmoid() if outputs == "multi_label" else logits.softmax(dim=-1)


def of_any(chosen: Tensor, of_each: Tensor, outputs: Outputs) -> Tensor:
    """The probability of what is meant in each image, (batch,).

    That of several classes together is their sum where one excludes the other, and else not known.

    Args:
        chosen: which classes, bool (batch, classes).
        of_each: their probabilities, (batch, classes).
    """
    exclusive = outputs == "logits"
    if outputs == "probabilities":  # of a softmax, or of a sigmoid for each
        exclusive = bool(((of_each.sum(dim=-1) - 1).abs() < 1e-4).all())
    known = (chosen.sum(dim=-1) == 1) | exclusive
    return of_each.where(chosen, 0.0).sum(dim=-1).where(known, math.nan)


def as_percent(probability: float) -> str:
    """For people, such as 98%, 2.3% or <0.1%."""
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.0%}" if probability >= 0.1 else f"{probability:.1%}"


def as_text(probability: float, value: float) -> str:
    """The probability where there is one, else the value, such as 0.58."""
    return f"{value:.3g}" if math.isnan(probability) else as_percent(probability)
