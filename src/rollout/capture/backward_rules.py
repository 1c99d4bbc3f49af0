"""Another backward pass: each function as a linear one with the same value, by rules of LRP.

Queries and keys, the scale of a norm and the gate of an activation count as constants, and a
product of two activations shares its gradient between them. So input times gradient is conserved
from layer to layer: it adds up to the logit, but for what the biases give.

    A. Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML
    2022: attention and layer norm.
    F. Mehri et al., LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
    Attributions, CVPR 2025: activations and gated products as well.

Values come from the network's own kernels: not a bit of the logits changes.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from rollout.capture.linear_functions import (
    activation,
    group_norm,
    layer_norm,
    rms_norm,
    through_zero,
    unit_length,
)

_SOFTMAXES: tuple[Callable, ...] = (torch.softmax, Tensor.softmax, F.softmax)
# f(0) = 0. ReLU, leaky or not, is not among them: its derivative is f(x) / x already.
_ACTIVATIONS: tuple[Callable, ...] = (
    *(F.gelu, F.silu, F.mish, F.hardswish, F.elu, F.selu, F.celu, F.relu6, F.hardtanh, F.softsign),
    *(torch.tanh, Tensor.tanh, F.tanh, F.tanhshrink, torch.square, Tensor.square),
)
# What multiplies something else, if it is multiplied at all.
_GATES: tuple[Callable, ...] = (
    *(torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.hardsigmoid, Tensor.sigmoid_),
    *(torch.tanh, Tensor.tanh, F.tanh, torch.erf, Tensor.erf, F.relu6, F.hardtanh, F.softplus),
    *(torch.exp, Tensor.exp, torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal),
    *(Tensor.__rtruediv__, Tensor.__rdiv__),
)
_MATRIX_PRODUCTS: tuple[Callable, ...] = (
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum),
)
_PRODUCTS: tuple[Callable, ...] = (
    *(torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__),
    *(Tensor.mul_, Tensor.__imul__),
    *_MATRIX_PRODUCTS,
)
_QUOTIENTS: tuple[Callable, ...] = (
    *(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide, Tensor.true_divide),
    *(Tensor.__truediv__, Tensor.__div__, Tensor.div_, Tensor.__itruediv__),
)
_NORMS: tuple[Callable, ...] = (
    *(F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm, F.group_norm, torch.group_norm),
    F.normalize,
)
# After these a gate is none any more.
_LAYERS = {F.linear, F.conv1d, F.conv2d, F.conv3d, *_MATRIX_PRODUCTS, *_NORMS, *_SOFTMAXES}


class LibraRules:
    """The rules by function, and the gates that one forward pass has made so far."""

    def __init__(self) -> None:
        self._gates = WeakTensorKeyDictionary()
        self._rules: dict[Callable, Callable] = {
            F.scaled_dot_product_attention: _attention,
            **dict.fromkeys(_SOFTMAXES, _softmax),
            **dict.fromkeys((F.layer_norm, torch.layer_norm), layer_norm),
            **dict.fromkeys((F.rms_norm, torch.rms_norm), rms_norm),
            **dict.fromkeys((F.group_norm, torch.group_norm), group_norm),
            F.normalize: unit_length,
            **dict.fromkeys(_ACTIVATIONS, activation),
            **dict.fromkeys((torch.pow, Tensor.pow, Tensor.__pow__), self._power),
            **dict.fromkeys(_PRODUCTS, self._product),
            **dict.fromkeys(_QUOTIENTS, _quotient),
        }

    def of(self, func: Callable) -> Callable:
        """What to call in its place: the same value, another derivative."""
        rule = self._rules.get(func)
        return func if rule is None or not torch.is_grad_enabled() else partial(rule, func)

    def follow(self, func: Callable, output: Any, arguments: Iterable[Any]) -> None:
        """Remember a gate, and what comes of it by arithmetic: `1 + tanh(...)` is one too."""
        if not isinstance(output, Tensor) or not _varies(output) or func in _LAYERS:
            return
        varying = _varying(arguments)
        divides = func in _QUOTIENTS and not _varies(next(iter(arguments), None))
        if func in _GATES or divides or (varying and all(one in self._gates for one in varying)):
            self._gates[output] = True

    def _product(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """x * gate(x) with the gate constant: LibraGrad, of GELU and SiLU. Other factors share the
        gradient, half for each of two: LibraGrad, of gated products; AttnLRP, eq. 7."""
        if len(args) == 2 and isinstance(args[1], list | tuple):
            args = (args[0], *args[1])  # einsum takes them either way
        varying = _varying([*args, *kwargs.values()])
        gates = [one for one in varying if one in self._gates]
        changes_gate = func in _IN_PLACE and args[0] in self._gates
        if 0 < len(gates) < len(varying) and not changes_gate:
            args = tuple(_constant(one) if _among(one, gates) else one for one in args)
            kwargs = {
                name: _constant(one) if _among(one, gates) else one for name, one in kwargs.items()
            }
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if (factors := len(varying)) > 1:
            output.register_hook(lambda gradient: gradient / factors)
        return output

    def _power(self, func: Callable, base: Any, exponent: Any, **kwargs: Any) -> Tensor:
        """x^2 is 0 at 0, as an activation; what has a pole there or a vertical slope is a gate."""
        if isinstance(exponent, int | float) and exponent >= 1 and _varies(base):
            return through_zero(lambda x: func(x, exponent, **kwargs), base)
        output = func(base, exponent, **kwargs)
        if _varies(output):
            self._gates[output] = True
        return output


_IN_PLACE = {Tensor.mul_, Tensor.__imul__}


def _varies(value: Any) -> bool:
    """Whether it depends on what gradients are taken of; weights are constants."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _varying(arguments: Iterable[Any]) -> list[Tensor]:
    lists = [one if isinstance(one, list | tuple) else [one] for one in arguments]
    return [one for some in lists for one in some if _varies(one)]


def _among(value: Any, tensors: Iterable[Tensor]) -> bool:
    return any(value is one for one in tensors)


def _constant(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _attention(
    func: Callable, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """O = P v with P constant, and so queries, keys and mask: Ali et al., attention heads."""
    args = tuple(map(_constant, args))
    return func(query.detach(), key.detach(), value, *args, **kwargs)


def _softmax(func: Callable, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The same where attention is written out. Probabilities of classes, (batch, classes), are an
    answer and keep their derivative."""
    return func(scores.detach() if scores.dim() >= 3 else scores, *args, **kwargs)


def _quotient(func: Callable, dividend: Any, divisor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """What a sum or a length divides is linear with the divisor constant: norms written out."""
    if _varies(dividend) and dividend is not divisor:
        divisor = _constant(divisor)
    return func(dividend, divisor, *args, **kwargs)
