"""Functions whose value is the network's own and whose derivative is that of a linear function."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def activation(func: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """f(x) = x * (f(x) / x) with the quotient constant: LibraGrad, of GELU and SiLU; the identity
    rule of AttnLRP (Achtibat et al., ICML 2024), eq. 9."""
    in_place = bool(kwargs.get("inplace")) or any(one is True for one in args)
    return through_zero(lambda x: func(x, *args, **kwargs), x, in_place=in_place)


def through_zero(value: Callable[[Tensor], Tensor], x: Tensor, *, in_place: bool = False) -> Tensor:
    """A function of each number alone, 0 at 0."""
    return _ThroughZero.apply(x, value, in_place) if x.requires_grad else value(x)


class _ThroughZero(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Callable[[Tensor], Tensor], in_place: bool) -> Tensor:
        y = value(x.clone() if in_place else x)
        near = torch.tensor(torch.finfo(x.dtype).eps, dtype=x.dtype)
        at_zero = value(near.clone()) / near  # where y / x is 0 / 0: the derivative
        ctx.save_for_backward((y / x).nan_to_num_(float(at_zero)))
        if not in_place:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def layer_norm(
    func: Callable,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    """(x - mean) / std with std constant: Ali et al., layer norm; LibraGrad."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _normalised(
        input,
        lambda x: func(x, normalized_shape, weight, bias, eps, *args),
        lambda x: (_variance(x, dims) + eps).rsqrt(),
        weight,
        input.shape,
        dims,
    )


def rms_norm(
    func: Callable,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / rms with rms constant: the same, without a mean."""
    dims = tuple(range(-len(normalized_shape), 0))
    small = torch.finfo(input.dtype).eps if eps is None else eps
    return _normalised(
        input,
        lambda x: func(x, normalized_shape, weight, eps),
        lambda x: (x.square().mean(dims, keepdim=True) + small).rsqrt(),
        weight,
        input.shape,
        (),
    )


def group_norm(
    func: Callable,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    """As layer norm, over each group of channels and all places: (batch, channels, ...)."""
    channels = (-1, *(1 for _ in input.shape[2:]))
    return _normalised(
        input,
        lambda x: func(x, num_groups, weight, bias, eps, *args),
        lambda x: (_variance(x, (-1,)) + eps).rsqrt(),
        None if weight is None else weight.reshape(channels),
        (len(input), num_groups, -1),
        (-1,),
    )


def unit_length(
    func: Callable,
    input: Tensor,
    p: float = 2.0,
    dim: int | tuple[int, ...] = 1,
    eps: float = 1e-12,
    out: Tensor | None = None,
) -> Tensor:
    """x / |x| with |x| constant: LibraGrad, of CLIP's features."""
    return _normalised(
        input,
        lambda x: func(x, p, dim, eps, out),
        lambda x: torch.linalg.vector_norm(x, p, dim, keepdim=True).clamp_min(eps).reciprocal(),
        None,
        input.shape,
        (),
    )


def _variance(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Ten times as quick as `Tensor.var` on a processor."""
    return (x - x.mean(dims, keepdim=True)).square_().mean(dims, keepdim=True)


def _normalised(x: Tensor, value: Callable[[Tensor], Tensor], *rule: Any) -> Tensor:
    return _Normalised.apply(x, value, *rule) if x.requires_grad else value(x)


class _Normalised(Function):
    """weight * scale * (x - mean) + bias with the scale constant.

    x is seen as `shape`, where the mean is over `dims`; without dims there is none. The scale is a
    function of x in this shape.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        value: Callable[[Tensor], Tensor],
        scale: Callable[[Tensor], Tensor],
        weight: Tensor | None,
        shape: Sequence[int],
        dims: tuple[int, ...],
    ) -> Tensor:
        seen = x.reshape(shape)
        exact = seen if seen.dtype == torch.float64 else seen.float()
        ctx.save_for_backward(scale(exact), weight)
        ctx.shape, ctx.dims = shape, dims
        return value(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        scale, weight = ctx.saved_tensors
        gradient = gradients[0] if weight is None else gradients[0] * weight
        shape, gradient = gradient.shape, gradient.reshape(ctx.shape)
        if ctx.dims:
            gradient = gradient - gradient.mean(ctx.dims, keepdim=True)
        return (gradient * scale).reshape(shape), None, None, None, None, None
