"""The benchmark runs and its table is complete; what it measures is not a matter for a test."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import vit_with_a_sink
from PIL import Image

from rollout import explain, wrap_model
from rollout.demo.samples import seen_coverage
from rollout.demo.scenes import SceneDataset
from rollout.maths.metrics import average_precision

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from the kernel's account")
def test_the_quick_table_is_complete():
    alone = {name: value for name, value in os.environ.items() if name != "VIT_EXPLAIN"}
    run = subprocess.run(
        [sys.executable, BENCH, "--quick", "--rounds", "1"],
        env=alone,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]
    # Both speeds, the memory, and time and memory of a batch of two for both rollouts.
    assert len(rows) == 2 + 1 + 4
    for row in rows:
        assert all(row)
        assert row[-1] in ("reached", "MISSED")
        assert 0 < float(row[-3]) < 100
    assert "set VIT_EXPLAIN" in run.stdout
    assert "1 thread" in run.stdout


def test_first_blocks_are_judged_by_the_maps_of_explain(monkeypatch):
    monkeypatch.syspath_prepend(BENCH.parent)
    start_block = importlib.import_module("start_block")
    model = wrap_model(vit_with_a_sink(), image_size=(32, 48), name="sink")
    measured = start_block.measure(model, seed=7, scenes=12)
    scenes = [SceneDataset(7, 12, objects=2).scene(number) for number in range(12)]
    masks = [np.any(list(scene.masks.values()), axis=0) for scene in scenes]
    coverage = seen_coverage(model, masks, model.layout)
    pictures = [Image.fromarray(scene.image) for scene in scenes]
    for start in range(3):
        found = explain(model, pictures, method="attention_rollout", start_block=start)
        expected = average_precision(found.map, coverage)
        assert np.allclose(measured.precision[:, start], expected[expected.isfinite()])
        drawn = measured.signals["block of which one patch draws least"][:, start]
        assert np.allclose(-drawn, (1 + 2 / 25) / 3 if start == 0 else 1 / 25, atol=1e-3)
    table = [list(row) for row in start_block.rows(measured, measured)]
    assert len(table) == 2 + 2 * 5 + 2 and all(all(row) for row in table)
    means = {row[0]: float(row[2].split()[0]) for row in table}
    assert means["all blocks"] == pytest.approx(measured.precision[:, 0].mean(), abs=1e-3)
    assert max(means.values()) == means["in hindsight: best for each image"]
    chosen = {row[0]: row[1] for row in table}
    assert chosen["block of which one patch draws least: one for the model"] in ("1", "2")
    text = start_block.report({"sink": (measured, measured)})
    assert f"## sink, {len(measured.precision)} scenes" in text and "\n| 2 | " in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_of_a_gpu_says_that_there_is_none():
    run = subprocess.run(
        [sys.executable, BENCH.with_name("gpu.py")], capture_output=True, text=True
    )
    assert run.returncode == 1 and "torch finds no GPU here" in run.stderr
    assert run.stdout == "" and "Traceback" not in run.stderr
