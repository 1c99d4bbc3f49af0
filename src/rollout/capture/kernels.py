"""Attention that runs in kernels of other packages, which a function mode cannot see."""

import inspect
from typing import Any

from torch import nn

_KERNELS = ("torch.nn.attention.flex_attention", "flash_attn", "xformers", "sageattention")
_SEEN = (None, "eager", "sdpa")


def kernel_out_of_sight(network: nn.Module) -> str | None:
    """The kernel that a module chose by configuration or calls by name; None where none is."""
    for module in network.modules():
        chosen = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if isinstance(chosen, str) and chosen not in _SEEN:
            return chosen
    called = (_called(type(module)) for module in network.modules())
    return next((kernel for kernel in called if kernel is not None), None)


def _called(kind: type) -> str | None:
    """A kernel among the names that a module's `forward` uses."""
    forward: Any = inspect.unwrap(getattr(kind, "forward"))  # noqa: B009
    code = getattr(forward, "__code__", None)
    for name in code.co_names if code is not None else ():
        function = forward.__globals__.get(name)
        home = getattr(function, "__module__", None) or getattr(function, "__name__", "")
        if isinstance(home, str) and home.startswith(_KERNELS):
            return home.split(".")[-1] if home.startswith("torch.") else home.split(".")[0]
    return None
