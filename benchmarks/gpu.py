"""Both rollouts on a GPU: time and memory beside the bare network, and beside vit-explain.

python benchmarks/gpu.py > benchmarks/RESULTS_GPU.md

VIT_EXPLAIN=path/to/vit-explain adds the attention rollout of a checkout of it; its gradient rollout
fails on a GPU, as it multiplies the network's output with a mask on the CPU.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import works
from measure import median_ratio
from table import machine, markdown
from works import Call, Subject

ROUNDS = 10
# (what, what it is held against); the first of each is ours.
PAIRS = [
    ("vanilla_rollout", "forward"),
    ("vanilla_rollout", "vit_explain_vanilla"),
    ("rollout_of_gradients", "forward_and_backward"),
]
NAMES = {
    "vanilla_rollout": "vanilla rollout",
    "rollout_of_gradients": "gradient rollout",
    "forward": "bare forward pass",
    "forward_and_backward": "forward + backward",
    "vit_explain_vanilla": "vit-explain",
}
BATCHES = {"DeiT-Tiny": (1, 64), "ViT-B/16": (1, 64), "ViT-S/14, 518 px": (1, 8)}
HOW = """\
Random weights and images. Vanilla rollout: max over the heads, discard ratio 0.9; gradient rollout:
mean, 0.9. From the image to the map, recording included. Times are medians of seconds on the clock,
the GPU's queue empty before and after, in interleaved rounds; ratios are medians of each round's
ratio. Memory is the most that is allocated on the GPU beyond weights and images. vit-explain runs
unchanged, with fused attention off, on one image: it takes no more, and selects entries on the
CPU."""


def on_gpu(model: str, batch: int) -> Subject:
    subject = works.load_subject(model).with_batch(batch)
    return replace(subject, network=subject.network.cuda(), images=subject.images.cuda())


def seconds(call: Call) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def mebibytes(call: Call) -> float:
    """The peak beyond what is allocated now, once libraries have their lasting buffers."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def rows() -> Iterator[tuple[str, ...]]:
    for model, batches in BATCHES.items():
        for batch in batches:
            subject = on_gpu(model, batch)
            for ours, theirs in PAIRS:
                if theirs.startswith("vit_explain") and not (works.VIT_EXPLAIN and batch == 1):
                    continue
                yield model, str(batch), NAMES[ours], *_compare(subject, ours, theirs)


def _compare(subject: Subject, ours: str, theirs: str) -> tuple[str, ...]:
    times: dict[str, list[float]] = {ours: [], theirs: []}
    calls = {name: getattr(works, name)(subject) for name in times}
    memory = {name: mebibytes(call) for name, call in calls.items()}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(seconds(call))
    shown = [
        f"{1e3 * statistics.median(times[name]):.1f} ms, {memory[name]:.0f} MiB" for name in times
    ]
    return shown[0], f"{NAMES[theirs]}: {shown[1]}", f"{median_ratio(*times.values()):.2f}"


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here; benchmarks/bench.py measures on the CPU")
    header = ("model", "batch", "what", "ours", "against", "ratio of times")
    gpu = f"- {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    print("\n\n".join(["# On a GPU", f"{machine()}\n{gpu}", HOW, markdown(header, rows())]))


if __name__ == "__main__":
    main()
