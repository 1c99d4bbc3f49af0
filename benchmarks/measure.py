"""How long a piece of work takes, and how much memory it holds at its peak."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from works import Call

# Freed memory of this size or more goes back to the system at once, so that what is resident is
# what is in use (glibc; see `man mallopt`).
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def interleaved_seconds(works: Sequence[Callable[[], Call]], rounds: int) -> list[list[float]]:
    """CPU seconds of each work in each round, (works, rounds), after one round to warm up.

    Each work is made ready outside of the measured time. On one thread CPU time is what an idle
    machine's clock would show, whatever else runs meanwhile; interleaving spreads what is left,
    such as the caches that others empty.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for round_number in range(rounds + 1):
        for ready, measured in zip(works, seconds, strict=True):
            call = ready()
            start = time.process_time()
            call()
            elapsed = time.process_time() - start
            if round_number > 0:
                measured.append(elapsed)
    return seconds


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_extra_mebibytes(requests: Sequence[tuple[str, str, int]]) -> list[float]:
    """What each work, (model, name in `works`, batch), holds at its peak beyond weights and images.

    Measured as resident memory in a process of its own, because malloc must be told so from the
    start. Unlike torch's profiler this sees numpy too; where both look they agree within 1 %.
    """
    command = [sys.executable, __file__, json.dumps(requests)]
    answer = subprocess.run(
        command, env=os.environ | RETURN_MEMORY, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def _peak_extra_mebibytes_here(model: str, work: str, batch: int) -> float:
    import works

    subject = works.load_subject(model).with_batch(batch)
    call = getattr(works, work)(subject)
    call()  # libraries allocate lasting buffers the first time
    # A call can run in small pieces that an earlier one left free; the highest needed them itself.
    return max(_peak_extra_mebibytes_of(call) for _ in range(3))


def _peak_extra_mebibytes_of(call: Call) -> float:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here (`man proc_pid_clear_refs`)
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """A line of the kernel's account of this process, in KiB."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(json.dumps([_peak_extra_mebibytes_here(*request) for request in json.loads(sys.argv[1])]))
