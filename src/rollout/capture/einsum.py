"""Attention written as an Einstein sum, such as `einsum("bhij,bjhd->bihd", attention, values)`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Equation:
    """A sum over the keys that multiplies attention with values.

    Attributes:
        attention: axes of the attention, such as "bhij": query and key come last.
        values: axes of the values; they may lack the heads, where all heads share them.
        output: axes of the product.
    """

    attention: str
    values: str
    output: str

    @classmethod
    def read(cls, equation: str, dimensions: int) -> "Equation | None":
        """None where the equation does something else.

        Args:
            dimensions: of the first operand; "..." stands for those that have no letter.
        """
        compact = equation.replace(" ", "")
        left, arrow, output = compact.replace("...", _dots(compact, dimensions)).partition("->")
        attention, _, values = left.partition(",")
        if not arrow or "," in values or len(attention) != dimensions:
            return None
        *outer, _, key = list(attention)
        channels = set(values) - set(attention)
        kept = len(channels) == 1 and set(output) == {*attention[:-1], *channels}
        only_key = key in values and attention[-2] not in values
        return cls(attention, values, output) if outer and kept and only_key else None

    @property
    def channel(self) -> str:
        return next(axis for axis in self.values if axis not in self.attention)

    def laid_out(self, values: Tensor) -> Tensor:
        """The values as (batch, heads, key, channels), with one head where heads share them."""
        *outer, _, key = list(self.attention)
        axes = [axis for axis in (*outer, key, self.channel) if axis in self.values]
        values = values.permute([self.values.index(axis) for axis in axes])
        for place, axis in enumerate(outer):
            values = values if axis in self.values else values.unsqueeze(place)
        return values

    def by_query(self, output: Tensor) -> Tensor:
        """The product as (batch, heads, query, channels): a view."""
        return output.permute([self.output.index(axis) for axis in self._order])

    def as_written(self, by_query: Tensor) -> Tensor:
        """The reverse of `by_query`."""
        return by_query.permute([self._order.index(axis) for axis in self.output])

    @property
    def _order(self) -> str:
        return self.attention[:-1] + self.channel


def _dots(equation: str, dimensions: int) -> str:
    """Letters for the axes that "..." stands for, by the first operand."""
    named = equation.partition(",")[0].replace("...", "")
    return "ABCDEFGH"[: max(dimensions - len(named), 0)]
