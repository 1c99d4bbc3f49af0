"""One block's fused matrices, never whole in memory where they are large."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from rollout.maths.block_sequence import ALL, GROUP_ENTRIES
from rollout.maths.order_statistics import order_statistics, streamed_order_statistics

# Of one image's matrix that is kept while its block is chained: 4096 tokens and a few, 67 MiB.
KEPT_ENTRIES = 4200**2

Piece = tuple[slice, Sequence[Tensor]]


class FusedBlock(Sequence[Tensor]):
    """A (batch, query, key) matrix for each head fusion, to be had some queries at a time.

    Indexed it is the whole matrix of a fusion, which at 16 384 tokens is 1 GB.

    Args:
        shape: (batch, query, key) of each matrix.
        fusions: how many there are.
        rows: compute the given queries of each matrix, (batch, the queries, key) for each fusion.
    """

    def __init__(
        self, shape: Sequence[int], fusions: int, rows: Callable[[slice], Sequence[Tensor]]
    ) -> None:
        self.shape, self._fusions, self._rows = tuple(shape), fusions, rows
        self._kept: list[Piece] | None = None

    @classmethod
    def of(cls, matrices: Sequence[Tensor]) -> "FusedBlock":
        """Of matrices that are there already, one for each fusion."""
        if isinstance(matrices, FusedBlock):
            return matrices
        block = cls(matrices[0].shape, len(matrices), lambda queries: matrices)
        block._kept = [(ALL, matrices)]
        return block

    def pieces(self) -> Iterable[Piece]:
        """Some queries and their rows of each matrix, until all are there: at once in small ones.

        Large ones are computed anew at each look.
        """
        _, query, key = self.shape
        if self._kept is None and query * key <= KEPT_ENTRIES:
            self._kept = list(self._computed())
        return self._computed() if self._kept is None else self._kept

    def _computed(self) -> Iterator[Piece]:
        _, query, key = self.shape
        size = max(1, GROUP_ENTRIES // key)
        for first in range(0, query, size):
            queries = slice(first, min(first + size, query))
            yield queries, self._rows(queries)

    def order_statistics(self, indices: Sequence[int]) -> list[Tensor]:
        """Each matrix's entries at `indices` of the sorted order: (indices, batch) for each fusion.

        Entries must not be negative where there are several pieces.
        """
        pieces = self.pieces()
        if isinstance(pieces, list) and len(pieces) == 1:
            ((_, matrices),) = pieces
            return [order_statistics(matrix.flatten(1), indices) for matrix in matrices]
        batch = self.shape[0]
        found = streamed_order_statistics(self._entries, indices)
        each = [found[first : first + batch] for first in range(0, len(found), batch)]
        return [torch.stack(images, dim=1) for images in each]

    def _entries(self) -> Iterator[list[Tensor]]:
        """Piece by piece the entries of each fusion's images, one after the other."""
        for _, matrices in self.pieces():
            yield [image.flatten() for matrix in matrices for image in matrix]

    def __len__(self) -> int:
        return self._fusions

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        return torch.cat([matrices[index] for _, matrices in self.pieces()], dim=1)
