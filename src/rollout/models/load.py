"""Models to be had: the bundled demo, any Vision Transformer of timm, or the user's own network."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from rollout.capture.observation import bare
from rollout.errors import ImageNotTakenError, UnsupportedNetworkError, shown
from rollout.files import DATA
from rollout.maths.checks import check_pair
from rollout.models import foundation
from rollout.models import labels as label_tables
from rollout.models.checkpoints import read_checkpoint
from rollout.models.described import described, owns_answer, say_that_it_is_unknown
from rollout.models.model import Model, as_channels, black_image
from rollout.models.networks import OWN_MODELS, check_name, load_state
from rollout.models.other_sizes import size_as_published
from rollout.models.outputs import Outputs, check_outputs, classifies, read_outputs
from rollout.models.preprocess import (
    ImageSize,
    Transform,
    as_size,
    default_transform,
    normalisation,
)
from rollout.models.shipped import read_shipped
from rollout.models.sources import create_network, named_in
from rollout.models.trial_run import check_network, first_look, refuse_volumes


def load_model(
    name: str = "demo",
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    image_size: ImageSize | None = None,
    device: str | torch.device = "auto",
    labels: Sequence[str] | None = None,
    weights: str | None = None,
    **options: Any,
) -> Model:
    """The bundled demo model, DINOv2 with its real weights, or any Vision Transformer of timm.

    Args:
        name: "demo"; "dinov2_small", DINOv2 ViT-S/14 offline from an installed package (the extra
            "photographs"), which returns features; "dinov2_scenes", the same with a classifier for
            the scenes' twelve classes; or a timm name such as "deit_tiny_patch16_224" or
            "hf-hub:owner/model".
        checkpoint: a local weights file for the architecture `name`, which may be left out where
            the file names it: safetensors, a torch file of tensors (it is read with
            weights_only=True), or .npz. Its classifier decides the classes; timm's own conversion
            is used, and nothing is left random.
        pretrained: False leaves the weights random.
        image_size: pixels, one number or (height, width), instead of the size that the weights were
            trained at (DINOv2: 224); position embeddings are interpolated.
        device: "auto" takes a GPU where there is one.
        labels: one per class; by default those of the file, of timm's configuration, or ImageNet's.
        weights: "averaged" (an exponential moving average, a teacher; the default) or "raw", where
            a checkpoint holds both, or the name of one of its tables.
        options: for `timm.create_model`, such as num_classes or in_chans.

    Warns:
        UserWarning: what was chosen or left out of a checkpoint; a classifier of random numbers.

    Raises:
        ValueError: unknown name, or a checkpoint that is damaged or does not fit.
        ModuleNotFoundError: the package that DINOv2's weights come in is not installed.
        ConnectionError: the pretrained weights are neither in the local cache nor within reach.
        UnsupportedNetworkError: the network cannot be explained; the message says why.
    """
    # Weights made in inference mode could never take part in a gradient.
    with torch.inference_mode(False):
        if name in OWN_MODELS and (checkpoint is None or name != "demo"):
            given = checkpoint is not None or weights is not None or bool(options)
            _refuse_options(name, given, pretrained, image_size)
            return _load_own(name, image_size, labels, device)
        file = None if checkpoint is None else read_checkpoint(checkpoint)
        if name == "demo" and file is not None:
            name = named_in(file)
        check_name(name)
        if image_size is not None:
            options["img_size"] = as_size(image_size)
        found = create_network(name, file, pretrained=pretrained, weights=weights, options=options)
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        try:
            return wrap_model(
                found.network,
                labels=found.labels if labels is None else labels,
                name=name,
                device=device,
                image_size=image_size,
            )
        except ImageNotTakenError as error:
            if image_size is None or error.size is not None:
                raise
            size = size_as_published(name)
            if size is None:
                raise
            cure = "give {} another image_size, or none: it takes {} x {}".format(name, *size)
            raise ValueError(f"{error}; {cure}") from error


def _refuse_options(
    name: str, options: bool, pretrained: bool, image_size: ImageSize | None
) -> None:
    if name == "demo" and (options or image_size is not None):
        raise ValueError("the demo model takes no checkpoint and no options; name an architecture")
    if name != "demo" and (options or not pretrained):
        raise ValueError(
            f"{name!r} takes no checkpoint and no options but image_size and device; name the "
            f"architecture, {foundation.ARCHITECTURE!r}, to give them"
        )


def _load_own(
    name: str,
    image_size: ImageSize | None,
    labels: Sequence[str] | None,
    device: str | torch.device,
) -> Model:
    if name == "dinov2_small":
        network = foundation.load_dinov2_small(image_size)
        return wrap_model(network, labels=labels, name=name, device=device)
    own = load_demo() if name == "demo" else foundation.load_dinov2_scenes(image_size)
    return wrap_model(
        own[0], labels=labels or own[1], name=name, device=device, outputs="multi_label"
    )


def wrap_model(
    network: nn.Module,
    *,
    transform: Transform | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    image_size: ImageSize | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    outputs: Outputs | None = None,
    picture_channels: Sequence[int] | None = None,
) -> Model:
    """A network that the user already has, ready to be explained: of timm, torchvision, Hugging
    Face, open_clip, or any module built on `scaled_dot_product_attention`.

    Args:
        network: put in eval mode, and moved to `device` if one is given. Of one that was compiled
            or made parallel the module inside is taken.
        transform: RGB image to (channels, height, width), or an image processor of Hugging Face; by
            default the one that the network's own configuration describes, or that of the network
            inside it. A warning says so where nothing describes it.
        labels: one per class; by default the network's own, or ImageNet's where timm knows the
            network as trained on it. With labels, what is returned are classes.
        image_size: what the default transform makes, one number or (height, width).
        grid_size, num_prefix_tokens: the patch grid and the tokens before it, where they cannot be
            read off the network. Found or given, they are held against what reaches each token.
        outputs: what it returns: "logits" (one class of several, a softmax), "multi_label" (several
            at once, a sigmoid each), "probabilities" (after its own softmax or sigmoid), "value" (a
            regression, or what is not known). By default what its configuration and its last
            functions say.
        picture_channels: the input channels that pictures show, one or three; by default the first
            three, or the first of two.

    Raises:
        UnsupportedNetworkError: the network cannot be explained; the message says why.
        TypeError: it is no network; the message says what would do.
        ValueError: it does not take what the transform makes, or the labels are too many or few.
    """
    check_network(network)
    if transform is not None and not callable(getattr(transform, "image_processor", transform)):
        raise TypeError(
            "transform must be a function from an RGB image to a tensor, or an image processor, "
            f"got {shown(transform)}"
        )
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a text, got {shown(name)}")
    if outputs is not None:
        check_outputs(outputs, 0)
    if grid_size is not None:
        grid_size = check_pair("grid_size", grid_size, "(rows, columns)")
    network = bare(network)
    if device is not None:
        network = network.to(find_device(device))
    inner = described(network)
    guessed = transform is None and inner is None
    if transform is None:
        transform = default_transform(inner or network, image_size)
    transform = getattr(transform, "image_processor", transform)  # of images and texts together
    said = {"grid_size": grid_size, "num_prefix_tokens": num_prefix_tokens}
    given: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    try:
        refuse_volumes(network)
        image = black_image(transform)
        first, layout = first_look(network, image, given)
    except UnsupportedNetworkError as error:
        message = f"{name}: {error}" if name else str(error)
        raise UnsupportedNetworkError(message, error.finding) from error
    inner = inner or network
    width = first.logits.shape[-1]
    num_classes = width if labels is not None or classifies(network, first) else 0
    if labels is None and owns_answer(inner, network, first):
        known = label_tables.known_labels(inner, num_classes)
    else:
        known = None if labels is None else label_tables.as_labels(labels)
    if known is not None and len(known) != num_classes:
        what = "classes" if classifies(network, first) else "values (features, it seems)"
        raise ValueError(f"got {len(known)} labels for a network with {num_classes} {what}")
    if outputs is not None:
        check_outputs(outputs, num_classes)
    if guessed:
        say_that_it_is_unknown(network)
    mean, std = normalisation(transform)
    name = name or type(network).__name__
    return Model(
        network.eval(),
        transform,
        layout,
        known,
        name,
        num_classes,
        mean,
        std,
        outputs=outputs or read_outputs(inner, first, num_classes),
        given_layout=given,
        picture_channels=as_channels(picture_channels, image.shape[1]),
    )


DEMO_WEIGHTS = DATA / "models" / "demo.safetensors"


def load_demo(path: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """A demo model and its labels, as the card beside its weights describes them.

    Args:
        path: the weights that `training.export` wrote; None is the bundled model.
    """
    path = path or DEMO_WEIGHTS
    state, card = read_shipped(path, "demo model", "08_train_the_demo_model")
    geometry = {key: value for key, value in card["geometry"].items() if key != "architecture"}
    network = timm.create_model(
        card["geometry"]["architecture"], num_classes=len(card["classes"]), **geometry
    )
    load_state(network, state, path, "demo")
    network.pretrained_cfg |= card["preprocessing"]
    return network, tuple(card["classes"])


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name if torch can use it here; "auto" is a GPU where there is one."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"unknown device {shown(device)}; use auto, cpu, cuda or cuda:0") from None
    if chosen.type == "meta":
        raise ValueError("tensors on the device 'meta' have no values; use auto, cpu or cuda")
    try:
        torch.empty(0, device=chosen)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"torch cannot use the device {shown(device)} here; use auto or cpu"
        ) from error
    return chosen
