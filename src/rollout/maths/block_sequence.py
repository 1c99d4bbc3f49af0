"""Tensors of one block after the other, computed when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from torch import Tensor

from rollout.errors import shown
from rollout.settings import is_index

# What is computed at a time: 8 MiB in float32. A whole block of 1370 tokens is 45 MiB, and fetching
# that much fresh memory from the system takes longer than filling it.
GROUP_ENTRIES = 2**21

ALL = slice(None)  # heads, or queries


class BlockSequence(Sequence[Tensor]):
    """One (batch, heads, query, key) tensor per block, first block first, computed when indexed.

    Args:
        blocks: compute the given heads and queries of each block.
        shapes: (batch, heads, query, key) of each block.
    """

    def __init__(
        self, blocks: Sequence[Callable[[slice, slice], Tensor]], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self._blocks = tuple(blocks)
        self._shapes = tuple(shapes)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """(batch, heads, query, key) of each block; nothing is computed."""
        return self._shapes

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "BlockSequence": ...
    def __getitem__(self, index: int | slice) -> "Tensor | BlockSequence":
        if isinstance(index, slice):
            return BlockSequence(self._blocks[index], self._shapes[index])
        return self._blocks[index](ALL, ALL)

    def head_groups(self, index: int, queries: slice = ALL) -> Iterator[Tensor]:
        """One block, or some of its queries, a few heads at a time, first heads first.

        Each is (batch, some heads, the queries, key).
        """
        batch, heads, query, key = self._shapes[index]
        entries = batch * len(range(query)[queries]) * key
        size = max(1, GROUP_ENTRIES // entries)
        for first in range(0, heads, size):
            yield self._blocks[index](slice(first, first + size), queries)

    def one_head(self, head: int) -> "BlockSequence":
        """The blocks with one of their heads alone, (batch, 1, query, key) each."""
        heads = min(shape[1] for shape in self._shapes)
        if not is_index(head) or not 0 <= head < heads:
            raise ValueError(
                f"head must be in [0, {heads - 1}] for {heads} heads, got {shown(head)}"
            )
        alone = [_one_head(block, head) for block in self._blocks]
        return BlockSequence(alone, [(shape[0], 1, *shape[2:]) for shape in self._shapes])

    def __repr__(self) -> str:
        return f"BlockSequence({len(self)} blocks, computed when indexed)"


def _one_head(
    block: Callable[[slice, slice], Tensor], head: int
) -> Callable[[slice, slice], Tensor]:
    return lambda _, queries: block(slice(head, head + 1), queries)
