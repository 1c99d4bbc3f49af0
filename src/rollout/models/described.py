"""The network within a network that says how its images are prepared and what its classes are."""

import warnings
from typing import Any

from torch import nn

from rollout.capture.attention_record import AttentionRecord

_LIBRARIES = ("timm.", "torchvision.", "open_clip.", "transformers.")


def described(network: nn.Module) -> nn.Module | None:
    """The network itself, or the one inside a container, training module or other wrapper.

    None where none has a description, or where several have different ones.
    """
    found = _outermost(network)
    alike = [one for one in found if _description(one) == _description(found[0])]
    return found[0] if found and len(alike) == len(found) else None


def owns_answer(inner: nn.Module, network: nn.Module, record: AttentionRecord) -> bool:
    """Whether the network returns what the described one inside it answers; its labels fit then."""
    if inner is network or record.answer is None:
        return inner is network
    names = {id(module): name for name, module in network.named_modules()}
    return f"{record.answer.module}.".startswith(f"{names[id(inner)]}.")


def say_that_it_is_unknown(network: nn.Module) -> None:
    """The default preprocessing is a guess where no part of a network tells its own."""
    warnings.warn(
        f"nothing in {type(network).__name__} says how its images are prepared; taken is what most "
        "networks of timm use (ImageNet's mean and standard deviation). Give wrap_model the "
        "transform that it was trained with",
        stacklevel=4,
    )


def _outermost(module: nn.Module) -> list[nn.Module]:
    if _is_described(module):
        return [module]
    return [one for child in module.children() for one in _outermost(child)]


def _is_described(module: nn.Module) -> bool:
    own = getattr(module, "pretrained_cfg", None) is not None
    own = own or getattr(getattr(module, "config", None), "model_type", None) is not None
    own = own or getattr(module, "image_mean", None) is not None
    homes = [kind.__module__ for kind in type(module).__mro__]
    return own or (_is_network(module) and any(home.startswith(_LIBRARIES) for home in homes))


def _is_network(module: nn.Module) -> bool:
    """Not a layer: it cuts images up, that is, has a convolution, and holds blocks."""
    names = [name for name, _ in module.named_children()]
    kinds = {type(part) for part in module.modules()}
    return nn.Conv2d in kinds and len(names) > 1 and len(list(module.modules())) > 10


def _description(module: nn.Module) -> list[Any]:
    """What must be alike in two networks side by side, such as a student and its teacher."""
    names = ("pretrained_cfg", "image_mean", "image_std", "num_classes")
    config = getattr(module, "config", None)
    more = (getattr(config, "model_type", None), getattr(config, "image_size", None))
    return [type(module), *more, *(getattr(module, name, None) for name in names)]
