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

from rollout.capture.answer import Answers
from rollout.capture.attention_call import AttentionCall, one_head
from rollout.capture.backward_rules import LibraRules
from rollout.capture.comparisons import Comparisons
from rollout.capture.einsum import Equation
from rollout.capture.network_state import hear_signals
from rollout.capture.patch_places import PatchPlaces
from rollout.capture.probabilities import Probabilities
from rollout.errors import UnsupportedNetworkError
from rollout.maths.token_layout import Extent
from rollout.settings import Backward

UNKNOWN = "?"  # the name of a module that is not one of the network's


class AttentionRecorder(TorchFunctionMode):
    """Sees every torch function the network calls; keeps what is attention, changes no value.

    Attributes:
        rules: by which functions get another derivative; None leaves them their own.
    """

    def __init__(self, network: nn.Module, gradients: bool, backward: Backward = "plain") -> None:
        super().__init__()
        self.gradients = gradients
        self.rules = LibraRules() if backward == "libra" and gradients else None
        self.calls: list[AttentionCall] = []
        self.convolution_size: tuple[int, int] | None = None
        self.convolutions = 0  # before the first attention; the last has `convolution_size`
        self.places = PatchPlaces()
        self.convolved_after: list[int] = []  # number of calls before each convolution of patches
        self.maxima: Tensor | None = None
        self.random: str | None = None  # the module that drew random numbers
        self._names = {id(module): name for name, module in network.named_modules()}
        self.unread: list[tuple[str, int]] = []  # module and keys of softmaxes that met no values
        self.answers = Answers()
        self._probabilities = Probabilities()
        self._comparisons = Comparisons()
        self._softmax_module = UNKNOWN

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        hear_signals()  # those that came while torch was on its way to here
        name, before = _HANDLERS.get(func), len(self.calls)
        called = func if self.rules is None else self.rules.of(func)
        if name is not None:
            output = getattr(self, name)(called, *args, **(kwargs or {}))
        else:
            output = called(*args, **(kwargs or {}))
            self._probabilities.follow(output, args)
        self.answers.follow(func, output, args)
        if self.rules is not None:
            self.rules.follow(func, output, args)
        if len(self.calls) == before:
            self._comparisons.follow(func, output, args)
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
        if output.dim() >= 3 and dim is not None:
            self._leave_unread()
            self._softmax_module = self._calling_module()
            self._probabilities.start(output, dim)
        return output

    def _leave_unread(self) -> None:
        """Remember a matrix like attention that nobody was seen to multiply with values."""
        if self._probabilities.square:
            self.unread.append((self._softmax_module, self._probabilities.keys))

    def _product(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Attention written out: the left factor or, transposed, the right one."""
        output = func(*args, **kwargs)
        found = self._probabilities
        if len(args) < 2 or found.softmax is None:
            return output
        left, right = args[:2]
        if found.multiplies(left, key=-1):
            return self._written_out(output, right, left, left)
        if found.multiplies(right, key=-2) and found.square and not found.holds(left):
            return self._written_out(output.mT, left.mT, right.mT, right).mT
        found.follow(output, args)
        return output

    def _written_out(
        self, by_query: Tensor, value: Tensor, probabilities: Tensor, factor: Tensor
    ) -> Tensor:
        """Record a product of `factor`, laid out as probabilities, with values."""
        self._probabilities.forget()
        compares = self._comparisons.holds(factor)
        return self._keep(by_query, value, probabilities=probabilities.detach(), compares=compares)

    def _einstein_sum(self, func: Callable, equation: Any, *operands: Any) -> Tensor:
        output = func(equation, *operands)
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        found = self._probabilities
        for place, one in enumerate(operands):
            key = found.key_of(one)
            read = None
            if len(operands) == 2 and key is not None and one.shape[key] == found.keys:
                other = operands[1 - place]
                read = Equation.read(str(equation), place, one.dim(), other.dim(), key)
            if read is not None:
                laid_out = read.by_query(output), read.laid_out(other), read.by_key(one)
                return read.as_written(self._written_out(*laid_out, one))
        found.follow(output, operands)
        return output

    def finish(self, batch: int) -> None:
        """What can be said of the calls once all are there."""
        self._leave_unread()
        self.calls = [one_head(call, batch) for call in self.calls]

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

    def _linear(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        self._probabilities.follow(output, args)
        if output.dim() == 2:
            self.answers.start(output, self._calling_module())
        return output

    def _convolution(self, func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        if not self.calls and output.dim() == 4:
            self.convolution_size = tuple(output.shape[-2:])
            self.convolutions += 1
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            given = dict(zip(names, args, strict=False)) | kwargs
            self.places.convolved(given["input"], output, given["weight"], given)
        elif max((args[1] if len(args) > 1 else kwargs["weight"]).shape[2:]) > 1:
            self.convolved_after.append(len(self.calls))  # 1 x 1 would keep the tokens apart
        if output.dim() == 4 and output.shape[2:] == (1, 1):
            self.answers.start(output, self._calling_module())
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
        """Name of the module that is nearest on the call stack, inside the pass.

        Beyond it a look at a frame's locals would keep them alive as long as the frame.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = id(frame.f_locals.get("self"))
            if caller in self._names:
                return self._names[caller]
            frame = frame.f_back
        return UNKNOWN


# Which method sees which function. By name: a recorder that held its own methods would be a circle,
# and with it all that it recorded would stay in memory until Python looks for circles.
_HANDLERS: dict[Callable, str] = {
    F.scaled_dot_product_attention: "_attention",
    F.multi_head_attention_forward: "_multi_head_attention",
    F.conv2d: "_convolution",
    F.pad: "_padding",
    F.linear: "_linear",
    torch.einsum: "_einstein_sum",
    **dict.fromkeys((torch.rand, torch.rand_like, torch.randn, torch.randperm), "_random"),
    **dict.fromkeys((torch.amax, Tensor.amax), "_maximum"),
    **dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), "_softmax"),
    **dict.fromkeys(
        (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm), "_product"
    ),
}
