"""Speed and memory of both rollouts, as ratios: to vit-explain, and to the bare network.

make bench                                  a few minutes; says where a target is missed
make bench VIT_EXPLAIN=path/to/vit-explain  compares with a checkout of vit-explain too
make bench ARGS=--quick                     a smoke run on the smallest model
make bench ARGS=--save                      keeps the table in benchmarks/RESULTS.md
make bench ARGS=--large                     and 4096 and 16 384 tokens, flow, a cold start: half an
                                            hour; goes with --save
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import flow
import torch
import works
from measure import interleaved_seconds, median_ratio, peak_extra_mebibytes
from table import Row, report

RESULTS = Path(__file__).parent / "RESULTS.md"
TINY, BASE, LARGE, MANY, MOST = works.MODELS
OURS = {"vanilla rollout": "vanilla_rollout", "gradient rollout": "rollout_of_gradients"}
NAMES = {
    "forward": "bare forward pass",
    "forward_and_backward": "forward + backward",
    "vit_explain_vanilla": "vit-explain",
    "vit_explain_gradient": "vit-explain",
}
# (what, model, {what it is held against: target})
SPEED: list[tuple[str, str, dict[str, float | None]]] = [
    ("vanilla rollout", TINY, {"vit_explain_vanilla": 0.6, "forward": 1.5}),
    ("gradient rollout", TINY, {"forward_and_backward": 1.2}),
    ("vanilla rollout", LARGE, {"vit_explain_vanilla": 0.5}),
    # The floor has no target here; it tells how much of vit-explain's time nobody can save.
    ("gradient rollout", LARGE, {"vit_explain_gradient": 0.35, "forward_and_backward": None}),
]
MEMORY_TARGET = 1.2
MOST_MEBIBYTES = 1024  # at 16 384 tokens
FLOW_SECONDS, COLD_SECONDS = 5.0, 5.0
COLD = """
from rollout import explain, load_model
from rollout.demo.samples import sample_names, sample_path
explain(load_model("demo"), sample_path(sample_names()[0]))
"""
# "Does not grow", with room for the noise of a busy machine.
BATCH_TARGET = 1.1


def speed_rows(models: list[str], rounds: int) -> Iterator[Row]:
    """Batch 1: ours against vit-explain and against the floor."""
    for what, model, targets in SPEED:
        against = [name for name in targets if works.VIT_EXPLAIN or "vit_explain" not in name]
        if model not in models or not against:
            continue
        subject = works.load_subject(model)
        contenders = [partial(getattr(works, name), subject) for name in (OURS[what], *against)]
        ours, *others = interleaved_seconds(contenders, rounds)
        for name, theirs in zip(against, others, strict=True):
            yield Row(
                f"{what}, time",
                model,
                f"{1e3 * statistics.median(ours):.0f} ms",
                f"{NAMES[name]}: {1e3 * statistics.median(theirs):.0f} ms",
                median_ratio(ours, theirs),
                targets[name],
            )


def memory_rows(models: list[str]) -> Iterator[Row]:
    """Peak extra memory of gradient rollout against its floor."""
    for model in models:
        requests = [(model, name, 1) for name in ("rollout_of_gradients", "forward_and_backward")]
        ours, floor = peak_extra_mebibytes(requests)
        yield Row(
            "gradient rollout, peak extra memory",
            model,
            f"{ours:.0f} MiB",
            f"forward + backward: {floor:.0f} MiB",
            ours / floor,
            MEMORY_TARGET,
        )


def many_tokens_rows() -> Iterator[Row]:
    """Peak extra memory of both rollouts where a matrix of one head is 64 MiB, and 1 GB."""
    names = [*OURS.values(), "forward_and_backward"]
    vanilla, gradient, floor = peak_extra_mebibytes([(MANY, name, 1) for name in names])
    for what, ours in zip(OURS, (vanilla, gradient), strict=True):
        against = f"forward + backward: {floor:.0f} MiB"
        what = f"{what}, peak extra memory"
        yield Row(what, MANY, f"{ours:.0f} MiB", against, ours / floor, MEMORY_TARGET)
    *both, floor = peak_extra_mebibytes([(MOST, name, 1) for name in names])
    for what, ours in zip(OURS, both, strict=True):
        against = f"{MOST_MEBIBYTES} MiB (forward + backward: {floor:.0f})"
        what = f"{what}, peak extra memory"
        yield Row(what, MOST, f"{ours:.0f} MiB", against, ours / MOST_MEBIBYTES, 1.0)


def flow_rows() -> Iterator[Row]:
    """Attention flow on a photograph, 1370 tokens."""
    name, attentions = next(iter(flow.real_attention(518)))
    _, seconds = flow.measure(attentions)
    shares = seconds / FLOW_SECONDS
    model = f"DINOv2-S, 518 px, {name}"
    yield Row("attention flow", model, f"{seconds:.1f} s", f"{FLOW_SECONDS} s", shares, 1.0)


def cold_rows(rounds: int) -> Iterator[Row]:
    """From a new process to the first map of the demo, beside the import of what it builds on."""
    cold, bare = (
        statistics.median(_cpu_seconds_of_a_process(code) for _ in range(rounds))
        for code in (COLD, "import torch, timm")
    )
    against = f"{COLD_SECONDS} s (import of torch and timm: {bare:.1f} s)"
    yield Row("import to first map", "demo", f"{cold:.1f} s", against, cold / COLD_SECONDS, 1.0)


def _cpu_seconds_of_a_process(code: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    user, system = (after[index] - before[index] for index in (2, 3))  # of children that ended
    return user + system


def batch_rows(batches: list[int], rounds: int) -> Iterator[Row]:
    """Time and memory per image of growing batches against batch 1."""
    one = works.load_subject(TINY)
    requests = [(TINY, name, size) for name in OURS.values() for size in batches]
    memory = dict(zip(requests, peak_extra_mebibytes(requests), strict=True))
    for what, name in OURS.items():
        contenders = [partial(getattr(works, name), one.with_batch(size)) for size in batches]
        times = [statistics.median(t) for t in interleaved_seconds(contenders, rounds)]
        for size, seconds in list(zip(batches, times, strict=True))[1:]:
            row = partial(_per_image_row, what, size)
            yield row("time", "ms", 1e3 * seconds, 1e3 * times[0])
            yield row("memory", "MiB", memory[TINY, name, size], memory[TINY, name, batches[0]])


def _per_image_row(what: str, size: int, kind: str, unit: str, batch: float, one: float) -> Row:
    return Row(
        f"{what}, {kind} per image, batch {size}",
        TINY,
        f"{batch / size:.1f} {unit}",
        f"batch 1: {one:.1f} {unit}",
        batch / size / one,
        BATCH_TARGET,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="only the smallest model and batches")
    mode.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--large", action="store_true", help="and many tokens, flow, a cold start")
    parser.add_argument("--rounds", type=int, default=25, help="repetitions (where slow, a fifth)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    few = max(1, arguments.rounds // 5)
    parts: list[Callable[[], Iterator[Row]]] = [partial(speed_rows, [TINY], arguments.rounds)]
    if arguments.quick:
        parts += [partial(memory_rows, [TINY]), partial(batch_rows, [1, 2], few)]
    else:
        parts += [partial(speed_rows, [LARGE], few), partial(memory_rows, [BASE, LARGE])]
        parts += [partial(batch_rows, [1, 8, 32], few)]
    if arguments.large:
        parts += [many_tokens_rows, flow_rows, partial(cold_rows, few)]
    rows = []
    for row in (row for part in parts for row in part()):
        print(
            f"{row.what}, {row.model}: {row.ratio:.2f}, {row.verdict}", file=sys.stderr, flush=True
        )
        rows.append(row)
    text = report(rows, compared=bool(works.VIT_EXPLAIN))
    print(text)
    if arguments.save:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
