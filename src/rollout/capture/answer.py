"""How a network's answer came of its last linear layer: what tells classes from features."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Functions that leave an answer an answer; anything else, such as a norm, makes features of it.
_ACTIVATIONS = {"softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "clamp"}
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "true_divide", "neg", "__add__", "__radd__"}
_ARITHMETIC |= {"__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__neg__"}
_ARITHMETIC |= {"__iadd__", "__isub__", "__imul__", "__itruediv__", "add_", "mul_", "div_", "sub_"}
_NOTHING = {"view", "reshape", "flatten", "squeeze", "contiguous", "clone", "detach", "dropout"}
_NOTHING |= {"float", "double", "half", "bfloat16", "to", "type", "type_as", "__getitem__", "cat"}

MOST_STEPS = 24  # from the last linear layer to the answer


@dataclass(frozen=True)
class Answer:
    """Where an answer comes from.

    Attributes:
        module: name of the linear layer (or 1 x 1 convolution of one pixel) that made it.
        activation: the last function that bent its values, such as "softmax"; None where there was
            none; "arithmetic" where something was calculated with its result.
    """

    module: str
    activation: str | None = None


class Answers:
    """Follows what linear layers return through the functions that keep it an answer."""

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, Answer]] = []

    def start(self, output: Tensor, module: str) -> None:
        self._keep(output, Answer(module))

    def _keep(self, output: Tensor, answer: Answer) -> None:
        self._made = [*self._made[1 - MOST_STEPS :], (output, answer)]

    def of(self, output: Any) -> Answer | None:
        """The answer that a tensor is; None for features."""
        return next((answer for made, answer in self._made if made is output), None)

    def follow(self, function: Callable, output: Any, arguments: Iterable[Any]) -> None:
        if not self._made:
            return
        name = getattr(function, "__name__", "")
        if name not in _ACTIVATIONS | _ARITHMETIC | _NOTHING:
            return
        lists = [one if isinstance(one, list | tuple) else [one] for one in arguments]
        tensors = [part for one in lists for part in one if isinstance(part, Tensor)]
        answers = [answer for answer in map(self.of, tensors) if answer is not None]
        others = [one for one in tensors if one.dim() > 1 and self.of(one) is None]
        if answers and not others and isinstance(output, Tensor) and self.of(output) is None:
            self._keep(output, _after(answers[0], name))


def _after(answer: Answer, name: str) -> Answer:
    if name in _ACTIVATIONS:
        return Answer(answer.module, name)
    if name in _ARITHMETIC and answer.activation is not None:
        return Answer(answer.module, "arithmetic")
    return answer
