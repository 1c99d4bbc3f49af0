"""Speed of the sweep, as ratios: to a single explanation, and to as many runs of vit-explain.

OMP_NUM_THREADS=1 python benchmarks/sweep.py         three minutes; says where a target is missed
VIT_EXPLAIN=path/to/vit-explain python benchmarks/sweep.py      compares with a checkout of it
OMP_NUM_THREADS=1 python benchmarks/sweep.py --save  keeps the table in RESULTS_SWEEP.md
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import works
from measure import interleaved_seconds, median_ratio
from table import WITHOUT_VIT_EXPLAIN, line, machine, markdown
from works import Call, Subject

from rollout import explain, sweep, wrap_model
from rollout.explanations.sweep import TENTHS

RESULTS = Path(__file__).parent / "RESULTS_SWEEP.md"
FUSIONS = ("mean", "max", "min")
MAPS = len(FUSIONS) * len(TENTHS)
TINY, _, LARGE, *_ = works.MODELS
PUBLISHED = {
    "attention_rollout": works.vit_explain_vanilla,
    "gradient_rollout": works.vit_explain_gradient,
}
# The most explanations that a sweep may cost, and the least that it gains on vit-explain.
TARGETS = {(TINY, "gradient_rollout"): (3.0, 15.0)}

HEADER = (
    *("model", "method", "sweep", "one explanation", "ratio", "target"),
    *("vit-explain", "gain", "target"),
)
HOW = f"""\
{MAPS} maps of one image: {len(TENTHS)} discard ratios, {len(FUSIONS)} head fusions, one target,
from the image to the table, correlations and entropies included. Random weights and images. One
explanation: the same method's `explain` with mean and 0.9. vit-explain: {MAPS} times one run of
it, unchanged, with fused attention off. Times are medians of CPU seconds in interleaved rounds,
ratios medians of each round's ratio; the gain is how many times faster the sweep is."""


def swept(subject: Subject, method: str) -> Call:
    model = wrap_model(subject.network)
    return lambda: sweep(
        model,
        subject.images,
        methods=[method],
        head_fusions=FUSIONS,
        discard_ratios=TENTHS,
        targets=[works.TARGET],
    )


def explained(subject: Subject, method: str) -> Call:
    model = wrap_model(subject.network)
    settings = {"target": works.TARGET, "discard_ratio": works.DISCARD_RATIO}
    return lambda: explain(model, subject.images, method=method, **settings)


def row(model: str, method: str, rounds: int) -> Iterator[str]:
    """The cells of one line of the table."""
    subject = works.load_subject(model)
    contenders = [partial(swept, subject, method), partial(explained, subject, method)]
    contenders += [partial(PUBLISHED[method], subject)] if works.VIT_EXPLAIN else []
    ours, one, *others = interleaved_seconds(contenders, rounds)
    most, least = TARGETS.get((model, method), (None, None))
    ratio = median_ratio(ours, one)
    yield from (model, method, milliseconds(ours), milliseconds(one), f"{ratio:.2f}")
    yield verdict(most, "<=", most is not None and ratio <= most)
    for published in others:
        gain = MAPS * median_ratio(published, ours)
        yield from (f"{MAPS} x {milliseconds(published)}", f"{gain:.1f}")
        yield verdict(least, ">=", least is not None and gain >= least)
    yield from [] if others else ["-"] * 3


def milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.0f} ms"


def verdict(target: float | None, sign: str, reached: bool) -> str:
    return "-" if target is None else f"{sign} {target:g}: {'reached' if reached else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="only the smallest model")
    mode.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--rounds", type=int, default=15, help="repetitions (where slow, a fifth)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {TINY: arguments.rounds, LARGE: max(1, arguments.rounds // 5)}
    rows = []
    for model, rounds in list(models.items())[: 1 if arguments.quick else None]:
        for method in PUBLISHED:
            rows.append(list(row(model, method, rounds)))
            print(line(rows[-1]), file=sys.stderr, flush=True)
    parts = ["# Benchmark of the sweep", machine(), HOW, markdown(HEADER, rows)]
    if not works.VIT_EXPLAIN:
        parts.append(WITHOUT_VIT_EXPLAIN)
    text = "\n\n".join(parts)
    print(text)
    if arguments.save:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
