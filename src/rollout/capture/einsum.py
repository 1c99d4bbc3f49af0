"""Attention written as an Einstein sum, such as `einsum("bhij,bjhd->bihd", attention, values)`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Equation:
    """A sum over the keys that multiplies attention with values, whatever the order of the axes.

    Attributes:
        attention, values, output: axes of each, such as "bhij"; the values may lack the heads,
            where all heads share them.
        query, key, channel: one axis each.
    """

    attention: str
    values: str
    output: str
    query: str
    key: str
    channel: str

    @classmethod
    def read(
        cls, equation: str, place: int, dimensions: int, other_dimensions: int, key: int
    ) -> "Equation | None":
        """None where the equation does something else.

        Args:
            place: of the attention among the two operands, 0 or 1.
            dimensions, other_dimensions: of the attention and of the values; "..." stands for those
                that have no letter.
            key: axis of the attention along which the keys lie, counted from the last: -1, ...
        """
        left, arrow, output = equation.replace(" ", "").partition("->")
        operands = left.split(",")
        if not arrow or len(operands) != 2:
            return None
        attention, values = operands[place], operands[1 - place]
        dots = max(_dots(attention, dimensions), _dots(values, other_dimensions), key=len)
        attention, values, output = (
            axes.replace("...", dots) for axes in (attention, values, output)
        )
        if len(attention) != dimensions or len(values) != other_dimensions:
            return None
        channels, summed = set(values) - set(attention), set(attention) - set(output)
        queries = [axis for axis in attention if axis not in values and axis in output]
        if len(channels) != 1 or summed != {attention[key]} or attention[key] not in values:
            return None
        if not queries or len(attention) < 3 or set(output) != {*attention} - summed | channels:
            return None
        # Where the heads share their values, the query is not the only axis that these lack.
        return cls(attention, values, output, queries[-1], attention[key], channels.pop())

    @property
    def _outer(self) -> list[str]:
        """Batch and heads, in the order of the output."""
        inner = (self.query, self.key, self.channel)
        return [axis for axis in self.output if axis not in inner]

    def by_key(self, attention: Tensor) -> Tensor:
        """The attention as (batch, heads, query, key): a view."""
        order = [*self._outer, self.query, self.key]
        return attention.permute([self.attention.index(axis) for axis in order])

    def laid_out(self, values: Tensor) -> Tensor:
        """The values as (batch, heads, key, channels), with one head where heads share them."""
        order = [*self._outer, self.key, self.channel]
        axes = [axis for axis in order if axis in self.values]
        values = values.permute([self.values.index(axis) for axis in axes])
        for place, axis in enumerate(self._outer):
            values = values if axis in self.values else values.unsqueeze(place)
        return values

    def by_query(self, output: Tensor) -> Tensor:
        """The product as (batch, heads, query, channels): a view."""
        return output.permute([self.output.index(axis) for axis in self._order])

    def as_written(self, by_query: Tensor) -> Tensor:
        """The reverse of `by_query`."""
        return by_query.permute([self._order.index(axis) for axis in self.output])

    @property
    def _order(self) -> list[str]:
        return [*self._outer, self.query, self.channel]


def _dots(axes: str, dimensions: int) -> str:
    """Letters for the axes that "..." stands for."""
    named = axes.replace("...", "")
    return "ABCDEFGH"[: max(dimensions - len(named), 0)] if "..." in axes else ""
