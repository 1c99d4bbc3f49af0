"""The measured rows as a markdown page, with the machine they were measured on."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import torch


@dataclass(frozen=True)
class Row:
    """One comparison: the ratio of ours to what it is held against; without a target, to know."""

    what: str
    model: str
    ours: str
    against: str
    ratio: float
    target: float | None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return "-"
        return "reached" if self.ratio <= self.target else "MISSED"

    def cells(self) -> tuple[str, ...]:
        target = "-" if self.target is None else f"<= {self.target:.2f}"
        ratio = f"{self.ratio:.2f}"
        return self.what, self.model, self.ours, self.against, ratio, target, self.verdict


WITHOUT_VIT_EXPLAIN = "Without vit-explain: set VIT_EXPLAIN to a checkout to compare with it."
HEADER = ("what", "model", "ours", "against", "ratio", "target", "verdict")


def report(rows: Sequence[Row], *, compared: bool) -> str:
    """The page: what was measured how and where, the table, and what was missed."""
    verdicts = [row.verdict for row in rows]
    parts = ["# Benchmark", machine(), HOW, markdown(HEADER, [row.cells() for row in rows])]
    if not compared:
        parts.append(WITHOUT_VIT_EXPLAIN)
    reached, missed = verdicts.count("reached"), verdicts.count("MISSED")
    parts.append(f"{reached} of {reached + missed} targets reached, {missed} missed.")
    return "\n\n".join(parts)


HOW = """\
Random weights and images. Vanilla rollout: max over the heads, discard ratio 0.9; gradient rollout:
mean, 0.9. From the image to the map, recording included. Times are medians of CPU seconds in
interleaved rounds, ratios medians of each round's ratio. vit-explain runs unchanged, with fused
attention off. Forward + backward: parameters frozen, gradient down to the input. Memory is what is
resident at the peak beyond weights and images; ratios per image are to batch 1, and 1.10 leaves
room for noise."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells."""
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Date, processor, load, threads and versions: one line each."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "numpy"))
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return "\n".join(
        [
            f"- {date.today()}",
            f"- {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread used, "
            f"load of the machine at the end {load}",
            f"- Python {platform.python_version()}, {versions}",
        ]
    )


def processor() -> str:
    """The processor's name as Linux knows it, elsewhere what Python knows."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
