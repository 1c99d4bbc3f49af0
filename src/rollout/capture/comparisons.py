"""Which tensors compare tokens with tokens: products of two activations, and what is made of them.

The softmax of attention is taken over such scores. Linear attention takes it over a projection
alone, (tokens, channels), which has the shape of attention where a head has as many channels as
there are tokens.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum", "cdist"}


class Comparisons:
    """Follows scores through all functions; holds no tensor that the network itself let go."""

    def __init__(self) -> None:
        self._made = WeakTensorKeyDictionary()

    def holds(self, tensor: Tensor) -> bool:
        return tensor in self._made

    def follow(self, function: Callable, output: Any, arguments: Iterable[Any]) -> None:
        """See a function that was no product of attention with values."""
        if torch.compiler.is_compiling():  # of flex_attention, which is traced under the mode
            return
        given = list(_tensors(arguments))
        if any(map(self.holds, given)) or _compares(function, output, given):
            for one in _tensors([output]):
                self._made[one] = True


def _compares(function: Callable, output: Any, given: list[Tensor]) -> bool:
    """A product of two activations, or each entry of one with each entry of the other."""
    activations = [one for one in given if one.dim() > 2 and not isinstance(one, nn.Parameter)]
    if len(activations) < 2 or not isinstance(output, Tensor):
        return False
    if getattr(function, "__name__", "") in _PRODUCTS:
        return True
    shapes = [one.shape for one in given]
    spread = output.numel() > max(one.numel() for one in given)
    return spread and _broadcast(shapes) == output.shape


def _broadcast(shapes: list[torch.Size]) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        return None


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from (one for one in argument if isinstance(one, Tensor))
