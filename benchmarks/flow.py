"""Attention flow against scipy on the full graph and, on request, networkx; one process and core.

    OMP_NUM_THREADS=1 python benchmarks/flow.py             197 tokens, 2 to 12 blocks, in a minute
    OMP_NUM_THREADS=1 python benchmarks/flow.py --networkx  one token by Edmonds-Karp, in minutes
    OMP_NUM_THREADS=1 python benchmarks/flow.py --large     1370 tokens, 12 blocks, and the memory

Attention is synthetic: random scores, a random popularity of every key, and heads that look nearby.
`sharpness` is their spread; at 0.3 attention is nearly uniform, at 5 most rows look at few tokens.
Both references solve token by token; their map is extrapolated from the tokens that were solved.
"""

import argparse
import resource
import time

import networkx as nx
import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from rollout.flow import CUTS, attention_flow
from rollout.fusion import fuse_heads, transition

SETTINGS = [(blocks, sharpness) for blocks in (2, 4, 6, 12) for sharpness in (0.3, 1.0, 3.0, 5.0)]
SOLVED_TOKENS = 10


def synthetic_attention(blocks, tokens, sharpness, heads=3, seed=0):
    """One (1, heads, query, key) tensor per block; every second head prefers near patches."""
    generator = torch.Generator().manual_seed(seed)
    side = int((tokens - 1) ** 0.5)
    patch = torch.arange(tokens - 1)
    place = torch.stack([patch // side, patch % side], dim=1).float()
    distance = (torch.cdist(place, place) / (side / 3)) ** 2
    attentions = []
    for _ in range(blocks):
        scores = sharpness * torch.randn(heads, tokens, tokens, generator=generator)
        scores += sharpness * torch.randn(heads, 1, tokens, generator=generator)
        scores[::2, 1:, 1:] -= distance
        attentions.append(scores.softmax(dim=-1)[None])
    return attentions


def full_graph(attentions):
    """Tails, heads, capacities of every edge; node block * tokens + token is a token below it."""
    transitions = torch.cat(
        [transition(fuse_heads(block).double()) for block in attentions]
    ).numpy()
    blocks, tokens, _ = transitions.shape
    block, query, key = np.indices(transitions.shape).reshape(3, -1)
    return (block + 1) * tokens + query, block * tokens + key, transitions.ravel()


def seconds_by_dense_scipy(attentions, values):
    """A whole map, extrapolated; the tokens that were solved are held against `values`."""
    start = time.process_time()
    tails, heads, capacities = full_graph(attentions)
    blocks, tokens = len(attentions), len(values)
    whole = (capacities * 2**30).astype(np.int32)
    graph = csr_array((whole, (tails, heads)), shape=((blocks + 1) * tokens,) * 2)
    built = time.process_time() - start
    sinks = np.linspace(0, tokens - 1, SOLVED_TOKENS).astype(int)
    start = time.process_time()
    solved = [maximum_flow(graph, blocks * tokens, sink).flow_value / 2**30 for sink in sinks]
    seconds = time.process_time() - start
    # The reference rounds every edge of its cut down.
    np.testing.assert_allclose(values[sinks], solved, rtol=0, atol=1e-5)
    return built + seconds * tokens / len(sinks)


def seconds_by_networkx(attentions, value, sink):
    """A whole map by Edmonds-Karp, as the original code does; extrapolated from `sink`."""
    tokens = attentions[0].shape[-1]
    graph = nx.DiGraph()
    edges = zip(*(part.tolist() for part in full_graph(attentions)), strict=True)
    graph.add_edges_from((tail, head, {"capacity": capacity}) for tail, head, capacity in edges)
    start = time.process_time()
    edmonds_karp = nx.algorithms.flow.edmonds_karp
    solved = nx.maximum_flow_value(graph, len(attentions) * tokens, sink, flow_func=edmonds_karp)
    np.testing.assert_allclose(value, solved, atol=1e-6)
    return (time.process_time() - start) * tokens


def measure(blocks, tokens, sharpness):
    """Attention, its values, and the best of two runs in seconds."""
    attentions = synthetic_attention(blocks, tokens, sharpness)
    seconds = []
    for _ in range(2 if tokens < 500 else 1):
        start = time.process_time()
        flow = attention_flow(attentions)
        seconds.append(time.process_time() - start)
    binds = torch.bincount(flow.cut[0], minlength=len(CUTS)).tolist()
    shares = ", ".join(f"{count} {name}" for name, count in zip(CUTS, binds, strict=True))
    print(f"{tokens:6} {blocks:6} {sharpness:9.1f} {min(seconds):8.2f} s", end="   ", flush=True)
    return attentions, flow.values[0].numpy(), min(seconds), shares


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networkx", action="store_true", help="one token by Edmonds-Karp")
    parser.add_argument("--large", action="store_true", help="1370 tokens, 12 blocks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("tokens blocks sharpness   our map   dense scipy   times faster   binding cuts")
    if arguments.large:
        for sharpness in (0.3, 1.0, 3.0):
            *_, shares = measure(12, 1370, sharpness)
            print(f"{'-':>9} {'-':>13}      {shares}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory {peak:.2f} GiB, attention and libraries included")
    elif arguments.networkx:
        attentions, values, ours, shares = measure(12, 197, 1.0)
        seconds = seconds_by_networkx(attentions, values[1], sink=1)
        print(f"networkx Edmonds-Karp {seconds:.0f} s, {seconds / ours:.0f} times slower")
    else:
        for blocks, sharpness in SETTINGS:
            attentions, values, ours, shares = measure(blocks, 197, sharpness)
            seconds = seconds_by_dense_scipy(attentions, values)
            print(f"{seconds:7.2f} s {seconds / ours:13.1f}      {shares}")


if __name__ == "__main__":
    main()
