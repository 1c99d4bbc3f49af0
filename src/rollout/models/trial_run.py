"""The first look at a network: what it makes of a black picture, and where its patches stand."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import record_attention
from rollout.errors import ImageNotTakenError, UnsupportedNetworkError
from rollout.maths.token_layout import TokenLayout
from rollout.models.inputs import input_device, input_dtype
from rollout.models.layout import read_layout
from rollout.models.other_sizes import size_that_works, takes_films
from rollout.models.patch_order import check_order
from rollout.models.readout import declared_pooling

TOWERS = ("vision_model", "visual", "vision_tower", "image_encoder")


def check_network(network: object) -> None:
    """Refuse what is no network, with what would do."""
    if isinstance(network, nn.Module):
        return
    inner = getattr(network, "model", None)  # a pipeline of Hugging Face
    if isinstance(getattr(network, "network", None), nn.Module):
        cure = "it is a model already: pass it to explain, or its .network"
    elif isinstance(inner, nn.Module):
        cure = "pass its .model, and its .image_processor as transform"
    elif isinstance(network, str | Path):
        cure = "load_model takes a name, and a file of weights as its checkpoint"
    else:
        cure = "load_model loads one by its name"
    raise TypeError(
        f"wrap_model takes a torch.nn.Module, got {type(network).__name__} {network!r:.60}; {cure}"
    )


def refuse_volumes(network: nn.Module) -> None:
    """Refuse what cuts volumes or films into patches: a map of theirs is not flat."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((module for module in network.modules() if isinstance(module, kinds)), None)
    frames = getattr(getattr(network, "config", None), "num_frames", None)
    if isinstance(first, nn.Conv3d) or frames is not None:
        raise _not_flat(network)


def _not_flat(network: nn.Module) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        f"{type(network).__name__} takes volumes or films: its patches lie in three dimensions, "
        "and wrap_model explains flat images. record_attention(network, volume) takes them as they "
        "are, and attention_rollout and gradient_rollout what it records",
        "its patches lie in three dimensions",
    )


def first_look(
    network: nn.Module, image: Tensor, given: Mapping[str, Any]
) -> tuple[AttentionRecord, TokenLayout]:
    """What `probe` recorded, and the layout read off it and checked.

    Args:
        image: as for `probe`.
        given: grid_size or num_prefix_tokens, where the user knows better.
    """
    height, width = image.shape[-2:]
    try:
        first = probe(network, image)
        layout = read_layout(network, first, (height, width), **given)
        check_order(network, _fitting(network, image), layout)
    except ValueError as error:
        if takes_films(network, _fitting(network, image)):
            raise _not_flat(network) from error
        raise
    return first, layout


def probe(network: nn.Module, image: Tensor) -> AttentionRecord:
    """One picture through the network: how many tokens, which grid, how many classes.

    Args:
        image: a black one, as the transform makes it, (1, channels, height, width).
    """
    image = _fitting(network, image)
    if declared_pooling(network) is None:  # then gradients show what the classifier reads
        try:
            return record_attention(network, image)
        except UnsupportedNetworkError as error:
            if error.finding != str(error):  # no graph of tokens, with gradients or without
                raise
        except Exception:  # methods without gradients may work all the same
            pass
    try:
        return record_attention(network, image, gradients=False)
    except UnsupportedNetworkError:
        raise
    except Exception as error:  # whatever a network raises when it is given the wrong thing
        size = size_that_works(network, image)
        raise ImageNotTakenError(
            f"{type(network).__name__} does not take what its transform makes, images of shape "
            f"{tuple(image.shape[1:])}; give wrap_model {', or '.join(_cures(network, size))} "
            f"({error})",
            size,
        ) from error


def _cures(network: nn.Module, size: tuple[int, int] | None) -> list[str]:
    """What to give wrap_model instead, as far as the network tells; `size` is one that it takes."""
    cures = ["the transform it was trained with"]
    if size is not None:
        cures.append("another image_size: it takes {} x {}".format(*size))
    if "interpolate_pos_encoding" in signature(network.forward).parameters:
        cures.append(
            "for images of another size a module that calls it with interpolate_pos_encoding=True"
        )
    if any(hasattr(module, "_hf_hook") for module in network.modules()):
        cures.append("the network without its weights offloaded")
    towers = [name for name in TOWERS if isinstance(getattr(network, name, None), nn.Module)]
    return cures + [f"the part that takes images alone, .{name}" for name in towers]


def _fitting(network: nn.Module, images: Tensor) -> Tensor:
    return images.to(input_device(network), input_dtype(network))
