"""Exact maximum flow through a stack of dense layers, solved on few of its edges.

Every value is squeezed between a flow that was routed and a cut that no flow can pass. The flow
uses a sparse part of the graph, so it is a lower bound; the cut counts every edge of the full
graph, so it is an upper bound. Where the two differ, the sparse part's own minimum cut names the
edges that are missing: those of the full graph that cross it. They are added and the residual
network is solved again, until flow and cut agree (Ford & Fulkerson, 1956; solver: Dinic, 1970).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

# Flow and cut count as equal within this; rounding capacities to integers costs about half of it
# where a cut severs a thousand edges.
TOLERANCE = 1e-6


# Capacities are int32 in scipy, and an edge and its reverse may come to carry the sum of both.
UNITS = 2**30 - 1


Floats = NDArray[np.float64]


Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """A cut of the full graph.

    Attributes:
        source_side: the tokens on the side of the source, (levels, tokens), top level first.
        severed: capacity of the edges that cross to the sink's side, (levels + 1,): those from the
            source, then block by block downwards, at last those into the sink.
    """

    source_side: Bools
    severed: Floats

    @property
    def capacity(self) -> float:
        return float(self.severed.sum())


class LayeredNetwork:
    """Tokens on levels: a source feeds the top, blocks lead down, the bottom drains into a sink.

    Node 0 is the source, node 1 + level * tokens + token a token, the last node the sink. Every
    graph is a sparse matrix of capacities, and the union of two is their elementwise maximum. Its
    rows are heads and its columns tails: the solver goes from the sink up to the source. It meets
    the narrow edges first, and takes two thirds of the time of the other way.
    """

    def __init__(self, supply: Floats, blocks: Floats, demands: Floats) -> None:
        """Build what all sinks share.

        Args:
            supply: capacities from the source to the top level, (tokens,).
            blocks: capacities from each level to the next one down, (levels - 1, tokens, tokens).
            demands: capacities from the bottom level to each sink, (tokens, sinks).
        """
        self.supply, self.blocks, self.demands = supply, blocks, demands
        self.levels, self.tokens = len(blocks) + 1, len(supply)
        self.nodes = self.levels * self.tokens + 2
        self.backbone = self._backbone()

    def minimum_cut(self, sink: int) -> tuple[Cut, float]:
        """The minimum cut before one sink, and the flow routed to it: equal within TOLERANCE."""
        cut, routed = self._trivial_cut(sink), 0.0
        if cut.capacity <= TOLERANCE:
            return cut, routed
        capacity = residual = self.backbone.maximum(self._edges_into(sink))
        flow = None
        while True:
            # What is missing shrinks from round to round, and so does the rounding.
            missing = cut.capacity - routed
            unit = missing / UNITS
            whole = _with_data(residual, (residual.data.clip(0, missing) / unit).astype(np.int32))
            step = maximum_flow(whole, self.nodes - 1, 0)
            routed += step.flow_value * unit
            if cut.capacity - routed > TOLERANCE:
                reached = self._reached(whole - step.flow)
                cut = min(cut, self._cut(reached, sink), key=lambda cut: cut.capacity)
            if cut.capacity - routed <= TOLERANCE:
                return cut, routed
            # As many as there are edges already cannot all be among those: some are new.
            capacity = capacity.maximum(self._edges_across(reached, limit=capacity.nnz))
            flow = step.flow * unit if flow is None else flow + step.flow * unit
            residual = capacity - flow

    def _trivial_cut(self, sink: int) -> Cut:
        """All edges into the sink, or all from the source: the lower of the cuts known unsolved."""
        from_source, into_sink = self.supply.sum(), self.demands[:, sink].sum()
        before_sink = into_sink <= from_source
        severed = np.zeros(self.levels + 1)
        severed[-1 if before_sink else 0] = min(from_source, into_sink)
        return Cut(np.full((self.levels, self.tokens), before_sink), severed)

    def _cut(self, source_side: Bools, sink: int) -> Cut:
        upper, lower = source_side[:-1], source_side[1:]
        between = [
            block[np.ix_(above, ~below)].sum()
            for block, above, below in zip(self.blocks, upper, lower, strict=True)
        ]
        from_source = self.supply[~source_side[0]].sum()
        into_sink = self.demands[source_side[-1], sink].sum()
        return Cut(source_side, np.array([from_source, *between, into_sink]))

    def _backbone(self) -> csr_array:
        """The edges that every sink starts from.

        All that leave the source's main token, on every level, and the largest of each row and of
        each column of a block; more of these in a shallow stack, where there are fewer ways round.
        """
        largest = min(max(2, 144 // max(1, len(self.blocks)) ** 2), self.tokens - 1)
        kept = np.zeros(self.blocks.shape, dtype=bool)
        for block, keep in zip(self.blocks, kept, strict=True):
            for axis in (0, 1):
                order = np.argpartition(block, -largest, axis=axis)
                top = np.take(order, np.arange(-largest, 0), axis=axis)
                np.put_along_axis(keep, top, True, axis=axis)
            keep[self.supply.argmax()] = True
        kept[:1] &= self.supply[:, None] > 0
        level, key, query = np.nonzero(kept.swapaxes(1, 2))
        heads = 1 + (level + 1) * self.tokens + key
        tails = 1 + level * self.tokens + query
        first = np.arange(self.tokens)
        return self._graph(
            np.concatenate([1 + first, heads]),
            np.concatenate([np.zeros_like(first), tails]),
            np.concatenate([self.supply, self.blocks[level, query, key]]),
        )

    def _edges_into(self, sink: int) -> csr_array:
        """What one sink adds: on every level the edges into its own token, then into the sink."""
        own_token = 1 + np.arange(1, self.levels) * self.tokens + sink
        heads = np.append(own_token, self.nodes - 1).repeat(self.tokens)
        capacities = np.append(self.blocks[:, :, sink], self.demands[:, sink])
        return self._graph(heads, np.arange(1, self.nodes - 1), capacities)

    def _edges_across(self, source_side: Bools, limit: int) -> csr_array:
        """The full graph's largest edges from the source's side to the sink's, in all blocks."""
        edges = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))]
        for level, block in enumerate(self.blocks):
            above = np.flatnonzero(source_side[level]).astype(np.int32)
            below = np.flatnonzero(~source_side[level + 1]).astype(np.int32)
            heads = (1 + (level + 1) * self.tokens + below).repeat(len(above))
            tails = np.tile(1 + level * self.tokens + above, len(below))
            edges.append((heads, tails, block.T[np.ix_(below, above)].ravel()))
        heads, tails, capacities = (np.concatenate(part) for part in zip(*edges, strict=True))
        if len(heads) > limit:
            largest = np.sort(np.argpartition(capacities, -limit)[-limit:])
            heads, tails, capacities = heads[largest], tails[largest], capacities[largest]
        return self._graph(heads, tails, capacities)

    def _graph(self, heads: NDArray, tails: NDArray, capacities: Floats) -> csr_array:
        """A matrix of capacities from edges that are sorted by head, then by tail."""
        starts = np.append(0, np.bincount(heads, minlength=self.nodes).cumsum())
        parts = (capacities, tails.astype(np.int32, copy=False), starts.astype(np.int32))
        return csr_array(parts, shape=(self.nodes, self.nodes))

    def _reached(self, residual: csr_array) -> Bools:
        """The source's side of the solver's minimum cut: what the residual network reaches."""
        reached = np.zeros(self.nodes, dtype=bool)
        reached[breadth_first_order(residual.T.tocsr(), 0, return_predecessors=False)] = True
        return reached[1:-1].reshape(self.levels, self.tokens)


def _with_data(graph: csr_array, data: NDArray) -> csr_array:
    return csr_array((data, graph.indices, graph.indptr), shape=graph.shape)
