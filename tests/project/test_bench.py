"""The benchmark runs and its table is complete; what it measures is not a matter for a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_of_a_gpu_says_that_there_is_none():
    run = subprocess.run(
        [sys.executable, BENCH.with_name("gpu.py")], capture_output=True, text=True
    )
    assert run.returncode == 1 and "torch finds no GPU here" in run.stderr
    assert run.stdout == "" and "Traceback" not in run.stderr
