"""A function mode that sees the attention calls of a network, in whatever library it was written.

Module hooks cannot see attention any more: fused kernels never build the probabilities, and a hook
on `attn_drop` silently records nothing. The mode keeps what the calls are given, while the
network's own kernels run: logits stay what they are.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from rollout.capture.attention_call import AttentionCall
from rollout.capture.einsum import Equation
from rollout.capture.patch_places import PatchPlaces
from rollout.errors import UnsupportedNetworkError
from rollout.maths.token_layout import Extent

_RANDOM: tuple[Callable, ...] = (torch.rand, torch.rand_like, torch.randn, torch.randperm)


UNKNOWN = "?"  # the name of a module that is not one of the network's


class AttentionRecorder(TorchFunctionMode):
    """Sees every torch function the network calls; keeps what is attention, changes nothing."""

    def __init__(self, network: nn.Module, gradients: bool) -> None:
        super().__init__()
        self.gradients = gradients
        self.calls: list[AttentionCall] = []
        self.convolution_size: tuple[int, int] | None = None
        self.places = PatchPlaces()
        self.convolved_after: list[int] = []  # number of calls before each convolution of patches
        self.maxima: Tensor | None = None
        self.random: str | None = None  # the module that drew random numbers
        self._names = {id(module): name for name, module in network.named_modules()}
        self._descended: list[Any] = []  # the last softmax, and what was made of it since
        softmaxes: list[Callable] = [torch.softmax, Tensor.softmax, F.softmax]
        products: list[Callable] = [
            torch.matmul,
            Tensor.matmul,
            Tensor.__matmul__,
            torch.bmm,
            Tensor.bmm,
        ]
        self._handlers: dict[Callable, Callable] = {
            F.scaled_dot_product_attention: self._attention,
            F.multi_head_attention_forward: self._multi_head_attention,
            F.conv2d: self._convolution,
            F.pad: self._padding,
            torch.einsum: self._einstein_sum,
            **dict.fromkeys(_RANDOM, self._random),
            **dict.fromkeys((torch.amax, Tensor.amax), self._maximum),
            **dict.fromkeys(softmaxes, self._softmax),
            **dict.fromkeys(products, self._product),
        }

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        handler = self._handlers.get(func)
        if handler is not None:
            return handler(func, *args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        if self._descended and any(map(self._is_probability, args)):
            self._descended.append(output)
        return output

    @property
    def convolution_extent(self) -> Extent | None:
        """What the last convolution before the first attention covers of the image."""
        size = self.convolution_size
        return None if size is None else self.places.extent(size)

    def _attention(
        self,
        func: Callable,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        output = func(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        mask = None if attn_mask is None else attn_mask.detach()
        inputs = {"query": query.detach(), "key": key.detach(), "mask": mask}
        return self._keep(output, value, **inputs, is_causal=is_causal, scale=scale)

    def _softmax(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if output.dim() >= 3 and dim in (-1, output.dim() - 1):
            self._descended = [output]
        return output

    def _is_probability(self, argument: Any) -> bool:
        """Whether it is the last softmax or made of it: mixed heads, dropout, another view."""
        if not isinstance(argument, Tensor):
            return False
        storage = argument.untyped_storage()._cdata
        tensors = [one for one in self._descended if isinstance(one, Tensor)]
        return any(one.untyped_storage()._cdata == storage for one in tensors)

    def _product(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Attention written out: the left factor, if it comes of the softmax just before."""
        output = func(*args, **kwargs)
        if len(args) < 2 or not self._descended or not self._is_probability(args[0]):
            return output
        if args[0].shape[-2:] != self._descended[0].shape[-2:]:
            return output
        self._descended = []
        return self._keep(output, args[1], probabilities=args[0].detach())

    def _einstein_sum(self, func: Callable, equation: Any, *operands: Any) -> Tensor:
        output = func(equation, *operands)
        if len(operands) != 2 or not self._is_probability(operands[0]):
            return output
        read = Equation.read(str(equation), operands[0].dim())
        if read is None or operands[0].shape[-2:] != self._descended[0].shape[-2:]:
            return output
        self._descended = []
        value, probabilities = read.laid_out(operands[1]), operands[0].detach()
        return read.as_written(
            self._keep(read.by_query(output), value, probabilities=probabilities)
        )

    def _random(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        self.random = self.random or self._calling_module()
        return func(*args, **kwargs)

    def _multi_head_attention(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """`nn.MultiheadAttention` arrives as one call: run its body under the mode once more."""
        unguarded = {**vars(F), "has_torch_function": lambda _: False}
        body = FunctionType(func.__code__, unguarded, func.__name__, func.__defaults__)
        with self:
            result = body(*args, **kwargs)
        call = self.calls[-1]
        if call.probabilities is not None and call.probabilities.dim() == 3:
            heads = (-1, kwargs["num_heads"] if "num_heads" in kwargs else args[4])
            self.calls[-1] = replace(  # (batch * heads, ...) -> (batch, heads, ...)
                call,
                probabilities=call.probabilities.unflatten(0, heads),
                value=call.value.unflatten(0, heads),
            )
        return result

    def _convolution(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        if not self.calls and output.dim() == 4:
            self.convolution_size = tuple(output.shape[-2:])
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            given = dict(zip(names, args, strict=False)) | kwargs
            self.places.convolved(given["input"], output, given["weight"], given)
        elif max((args[1] if len(args) > 1 else kwargs["weight"]).shape[2:]) > 1:
            self.convolved_after.append(len(self.calls))  # 1 x 1 would keep the tokens apart
        return output

    def _padding(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        if not self.calls:
            given = dict(zip(("input", "pad"), args, strict=False)) | kwargs
            self.places.padded(given["input"], output, given["pad"])
        return output

    def _maximum(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The maximum over the tokens, (batch, tokens, channels): where it lies in each channel."""
        output = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if self.calls and args[0].dim() == 3 and dim == 1:
            tokens, channels = args[0].shape[1:]
            winner = args[0].detach().argmax(dim=1)  # (batch, channels)
            self.maxima = F.one_hot(winner, tokens).sum(dim=1) / channels
        return output

    def _keep(self, output: Tensor, value: Tensor, **inputs: Any) -> Tensor:
        """Record one call; where nothing below needs a gradient, the graph starts at its output."""
        module, edge = self._calling_module(), None
        if self.gradients:
            if not torch.is_grad_enabled():
                raise UnsupportedNetworkError(
                    f"{module} runs its attention without gradients (no_grad inside the network); "
                    "use a method that needs none, such as attention_rollout"
                )
            started = output.requires_grad
            edge = get_gradient_edge(output.requires_grad_())
            output = output if started else output.clone()  # a leaf must not be changed in place
        self.calls.append(AttentionCall(module, value.detach(), edge=edge, **inputs))
        return output

    def _calling_module(self) -> str:
        """Name of the module that is nearest on the call stack."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = id(frame.f_locals.get("self"))
            if caller in self._names:
                return self._names[caller]
            frame = frame.f_back
        return UNKNOWN
