"""Attention flow against scipy on the full graph and, on request, networkx; one process and core.

    OMP_NUM_THREADS=1 python benchmarks/flow.py             197 tokens, 2 to 12 blocks, and the demo
                                                            model's samples, in two minutes
    OMP_NUM_THREADS=1 python benchmarks/flow.py --networkx  and one token by Edmonds-Karp: minutes
    OMP_NUM_THREADS=1 python benchmarks/flow.py --large     1370 tokens, 12 blocks, and the memory
    OMP_NUM_THREADS=1 python benchmarks/flow.py --real      DINOv2-S on photos: 257, 1370 tokens

Synthetic attention: random scores, a random popularity of every key, and heads that look nearby.
`sharpness` is their spread; at 0.3 attention is nearly uniform, at 5 most rows look at few tokens.
For ViT-S/14 with random weights it is the factor on queries and on keys. Seconds are processor
time. Both references solve token by token; their map is extrapolated from what was solved.
"""

import argparse
import resource
import time

import networkx as nx
import numpy as np
import timm
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from rollout import attention_flow, load_model, record_attention
from rollout.demo.samples import sample_names, sample_path
from rollout.maths.flow import CUTS
from rollout.maths.fusion import fuse_heads, transition

SETTINGS = [(blocks, sharpness) for blocks in (2, 4, 6, 12) for sharpness in (0.3, 1.0, 3.0, 5.0)]
NETWORKX_SETTING = (12, 1.0)
SOLVED_TOKENS = 20
HEADER = (
    f"{'attention':24} {'tokens':>6} {'blocks':>6} {'our map':>10} {'dense scipy':>20} "
    f"{'networkx':>20}    binding cuts"
)


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


def vit_attention(sharpness):
    """ViT-S/14 at 518 px, random weights and a random image; block by block, computed on demand."""
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", img_size=518).eval()
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight[: 2 * network.embed_dim] *= sharpness
    return record_attention(network, torch.randn(1, 3, 518, 518), gradients=False).attentions


def demo_attention():
    """The demo model's attention on each sample: name to (1, heads, query, key) per block."""
    model = load_model("demo")
    images = {name: model.images(sample_path(name)) for name in sample_names()}
    records = {
        name: record_attention(model.network, image, gradients=False)
        for name, image in images.items()
    }
    return {name: list(record.attentions) for name, record in records.items()}


def real_attention(side):
    """DINOv2-S on each photograph: name to (1, heads, query, key) per block, computed on demand."""
    model = load_model("dinov2_small", image_size=side)
    for name in sample_names():
        if name.startswith("photo"):
            image = model.images(sample_path(name))
            yield name, record_attention(model.network, image, gradients=False).attentions


def measure(attentions, rounds=1):
    """The flow, and the seconds of the best round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        flow = attention_flow(attentions)
        seconds.append(time.process_time() - start)
    return flow, min(seconds)


def print_row(name, attentions, flow, seconds, dense=None, networkx=None):
    """One line of the table; None for a reference that was left out."""
    blocks, tokens = len(attentions), flow.values.shape[1]
    columns = [f"{name:24} {tokens:6} {blocks:6} {seconds:8.2f} s"]
    for reference in (dense, networkx):
        shown = "left out"
        if reference is not None:
            shown = f"{reference:.2f} s {reference / seconds:8.1f} x"
        columns.append(f"{shown:>20}")
    print(*columns, f"   {count_cuts([flow])}", flush=True)


def count_cuts(flows):
    """How many tokens bind where, such as "88 input, 80 between, 29 readout"."""
    binds = sum(torch.bincount(flow.cut.flatten(), minlength=len(CUTS)) for flow in flows).tolist()
    return ", ".join(f"{count} {name}" for name, count in zip(CUTS, binds, strict=True))


def small_table(with_networkx):
    print(HEADER)
    for blocks, sharpness in SETTINGS:
        attentions = synthetic_attention(blocks, 197, sharpness)
        flow, seconds = measure(attentions, rounds=3)
        values, networkx = flow.values[0].numpy(), None
        if with_networkx and (blocks, sharpness) == NETWORKX_SETTING:
            networkx = seconds_by_networkx(attentions, values[1], sink=1)
        dense = seconds_by_dense_scipy(attentions, values)
        print_row(f"synthetic, sharpness {sharpness}", attentions, flow, seconds, dense, networkx)
    flows = []
    for name, attentions in demo_attention().items():
        flow, seconds = measure(attentions, rounds=3)
        dense = seconds_by_dense_scipy(attentions, flow.values[0].numpy())
        print_row(f"demo, {name}", attentions, flow, seconds, dense)
        flows.append(flow)
    print(f"demo, all {len(flows)} samples: {count_cuts(flows)}")


def large_table():
    print(HEADER)
    for sharpness in (1.0, 4.0, 8.0):
        attentions = vit_attention(sharpness)
        print_row(f"ViT-S/14, sharpness {sharpness}", attentions, *measure(attentions))
        print_peak_memory()
    for sharpness in (0.3, 1.0, 3.0):
        attentions = synthetic_attention(12, 1370, sharpness)
        print_row(f"synthetic, sharpness {sharpness}", attentions, *measure(attentions))
        print_peak_memory()


def real_table():
    print(HEADER)
    for side in (224, 518):
        flows = []
        for name, attentions in real_attention(side):
            flow, seconds = measure(attentions)
            dense = None
            if side == 224:
                dense = seconds_by_dense_scipy(list(attentions), flow.values[0].numpy())
            print_row(f"DINOv2-S, {name}", attentions, flow, seconds, dense)
            flows.append(flow)
        print(f"DINOv2-S at {side} px, all {len(flows)} photographs: {count_cuts(flows)}")
        print_peak_memory()


def print_peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{'':24} peak so far {peak:.2f} GB, attention and libraries included", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networkx", action="store_true", help="one token by Edmonds-Karp, too")
    parser.add_argument("--large", action="store_true", help="1370 tokens, 12 blocks, instead")
    parser.add_argument("--real", action="store_true", help="DINOv2-S on photographs, instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.real:
        real_table()
    elif arguments.large:
        large_table()
    else:
        small_table(arguments.networkx)


if __name__ == "__main__":
    main()
