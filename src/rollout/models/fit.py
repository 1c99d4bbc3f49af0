"""A network of timm filled from a file, through the architecture's own conversion; all or nothing.

timm's conversions resample position embeddings to the size asked for, and know the layouts of other
libraries. They may also leave something random without a word: here whatever stays without weights,
and whatever finds no place, is an error.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rollout.models.checkpoints import ONE_AT_A_TIME, Checkpoint
from rollout.models.jax_weights import fill_from_jax
from rollout.models.networks import create
from rollout.models.state_dicts import TRAINING_ONLY, StateDict, find_state_dict
from rollout.models.strict import NO_SOURCE, Misfit, create_strictly, refusal
from rollout.models.trained import check_classes, check_patches, num_classes, trained_size

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Filled:
    """A network with its weights; what was chosen on the way stands in `notes`, in sentences."""

    network: Any
    notes: tuple[str, ...] = ()


def fill(
    name: str, checkpoint: Checkpoint, options: Mapping[str, Any], weights: str | None = None
) -> Filled:
    """The timm network `name` with the weights of a file, which decides its classes and channels.

    Args:
        options: for timm; `img_size` and `in_chans` convert the weights, num_classes=0 takes the
            classifier off.
        weights: "averaged" or "raw" where a file holds both, or the name of one of its tables.

    Raises:
        ValueError: the file does not fit; the message says what was found and what was expected.
    """
    sketch = _sketch(name, options)
    if checkpoint.jax:
        return Filled(fill_from_jax(name, checkpoint, sketch, options))
    shapes = {key: value.shape for key, value in sketch.state_dict().items()}
    state = find_state_dict(checkpoint, shapes, weights)
    extras = [key for key in state.tensors if _is_extra(key, shapes)]
    tensors = {key: _alone(state.tensors[key]) for key in state.tensors if key not in extras}
    source, arguments = _plan(checkpoint, tensors, sketch, options)
    try:
        network, more = _load(name, tensors, source, arguments)
    except Misfit as misfit:
        raise ValueError(refusal(misfit, name, checkpoint, state.tensors)) from misfit
    if "siglip" in name and options.get("global_pool", "map") != "map":  # timm is not strict there
        _check_missing(name, checkpoint, network, tensors)
    if "visual.proj" in tensors:
        network.num_classes = 0  # CLIP's projection makes an embedding, no logits
    if options.get("num_classes") == 0 and arguments["num_classes"]:
        network.reset_classifier(0)
    notes = _notes(name, checkpoint, state, [*extras, *more, *state.outside], weights)
    return Filled(network, tuple(notes))


def _sketch(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network without values: its names, its shapes, timm's description of its weights."""
    with ONE_AT_A_TIME, warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # of weights that are never filled
        return create(name, options)


def _is_extra(name: str, shapes: Shapes) -> bool:
    """Of training alone. timm's conversions know official files by their mask token: it stays."""
    return name not in shapes and name != "mask_token" and bool(TRAINING_ONLY.fullmatch(name))


def _alone(tensor: Tensor) -> Tensor:
    """timm copies what it is given, and of a view it would copy all that the view looks into."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _load(
    name: str, tensors: dict[str, Tensor], source: dict[str, Any], arguments: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """The filled network, and what had to be left out because it is of training alone."""
    try:
        return create_strictly(name, source | {"state_dict": tensors}, arguments), []
    except Misfit as misfit:
        extras = [name for name in misfit.unexpected if TRAINING_ONLY.fullmatch(name)]
        if misfit.missing or misfit.shapes or extras != misfit.unexpected or not extras:
            raise
    kept = {name: value for name, value in tensors.items() if name not in extras}
    return create_strictly(name, source | {"state_dict": kept}, arguments), extras


def _check_missing(
    name: str, file: Checkpoint, network: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    missing = [key for key in network.state_dict() if key not in tensors]
    if missing:
        raise ValueError(
            f"{file.path} does not fit {name!r}: {missing[0]} is missing; leave global_pool out"
        )


def _plan(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], sketch: Any, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the source is described to timm, and the arguments of the network to make."""
    described = sketch.pretrained_cfg
    stem = f"{described.get('first_conv')}.weight"
    channels = described["input_size"][0]
    if stem in tensors and tensors[stem].dim() == 4:
        own = sketch.state_dict()[stem].shape
        channels = tensors[stem].shape[1] * options.get("in_chans", channels) // own[1]
        check_patches(checkpoint, tuple(tensors[stem].shape[2:]), tuple(own[2:]), options)
    elif options.get("in_chans", channels) != channels:
        raise ValueError(
            f"the weights of {checkpoint.path} cannot be turned from {channels} channels into "
            f"{options['in_chans']}: their first layer is no convolution; leave in_chans out"
        )
    classes = num_classes(tensors, described.get("classifier"))
    check_classes(checkpoint, classes, options.get("num_classes"))
    source = NO_SOURCE | {
        "num_classes": classes,
        "input_size": (channels, *described["input_size"][1:]),
        "label_offset": 0,  # the file's own classifier, whole
    }
    size = trained_size(tensors, sketch)
    arguments = {"in_chans": channels, **size, **options, "num_classes": classes}
    return source, arguments


def _notes(
    name: str,
    checkpoint: Checkpoint,
    state: StateDict,
    left_out: list[str],
    weights: str | None,
) -> list[str]:
    notes = []
    if state.others and weights is None:
        others = ", ".join(repr(other) for other in state.others)
        kind = "averaged weights" if state.averaged else "weights"
        other = "raw" if state.averaged else state.others[0]
        notes.append(
            f"{checkpoint.path} holds several networks: the {kind} {state.name!r} were taken, not "
            f"{others}; weights={other!r} takes the others"
        )
    if left_out:
        shown = ", ".join(left_out[:3]) + (" and others" if len(left_out) > 3 else "")
        notes.append(
            f"{len(left_out)} tensors of {checkpoint.path} are no part of {name!r} and were left "
            f"out: {shown}"
        )
    return notes
