"""The last softmax of a pass and what was made of it since: dropout, mixed heads, other views."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

MOST_STEPS = 50  # between a softmax and its product with the values


class Probabilities:
    """Follows one softmax through other functions until it meets the values.

    Attributes:
        softmax: its output; None before the first, and once it was multiplied with values.
        keys: over how many entries it was taken.
    """

    def __init__(self) -> None:
        self.softmax: Tensor | None = None
        self.keys = 0
        # What came of it, and the axis of the keys, counted from the last: -1, -2, ...
        self._made: list[tuple[Tensor, int]] = []

    def start(self, softmax: Tensor, dim: int) -> None:
        self.softmax, self.keys = softmax, softmax.shape[dim]
        self._made = [(softmax, dim if dim < 0 else dim - softmax.dim())]

    def forget(self) -> None:
        self.softmax, self._made = None, []

    @property
    def square(self) -> bool:
        """Whether it may be attention among tokens: as many queries as keys, more than one."""
        sizes = [] if self.softmax is None else list(self.softmax.shape)
        return self.keys > 1 and sizes.count(self.keys) > 1

    def holds(self, argument: Any) -> bool:
        return self.key_of(argument) is not None

    def key_of(self, argument: Any) -> int | None:
        """Along which axis the keys lie; None for what was not made of the softmax."""
        if not self._made or not isinstance(argument, Tensor):
            return None
        for made, key in self._made:
            if made is argument:
                return key
        storage = argument.untyped_storage()._cdata
        for made, key in reversed(self._made):
            if made.untyped_storage()._cdata == storage:
                return _moved(key, made, argument)
        return None

    def follow(self, output: Any, arguments: Iterable[Any]) -> None:
        """Remember what a function made of one of them."""
        if not self._made or not isinstance(output, Tensor):
            return
        for argument in arguments:
            key = self.key_of(argument)
            if key is not None:
                self._made.append((output, _moved(key, argument, output)))
                if len(self._made) > MOST_STEPS:  # all that follows would be kept in memory
                    self._made = []
                return

    def multiplies(self, factor: Any, key: int) -> bool:
        """Whether a product with this factor sums over the keys, if it does along that axis."""
        if self.softmax is None or self.key_of(factor) != key or factor.dim() < 3:
            return False
        sizes = list(self.softmax.shape)
        query = factor.shape[-3 - key]  # the other one of the last two
        return factor.shape[key] == self.keys and query in sizes


def _moved(key: int, before: Tensor, after: Tensor) -> int:
    """Where an axis of one tensor lies in a view of it; else in the same place from the last."""
    same = before.untyped_storage()._cdata == after.untyped_storage()._cdata
    if not same or -key > before.dim():
        return key
    wanted = before.shape[key], before.stride(key)
    axes = zip(after.shape, after.stride(), strict=True)
    found = [place for place, axis in enumerate(axes) if axis == wanted]
    return found[0] - after.dim() if len(found) == 1 else key
