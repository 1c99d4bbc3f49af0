"""Jobs over many processes by Dask: a cluster of this machine, one that exists, or none.

Dask replaces a worker that dies and repeats its job. The scheduler never holds more than a few jobs
for each worker; the list of all of them stays here.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from distributed import Client, KilledWorker, WorkerPlugin, get_worker
from distributed import as_completed as dask_as_completed
from distributed.comm import CommClosedError
from distributed.scheduler import NoValidWorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")

KILLS = 3  # workers that a job may kill before it is given up
HELD = "rollout-held"


@dataclass(frozen=True)
class Lost:
    """What a job has for a result when it killed every worker that tried it."""

    reason: str


class Held(WorkerPlugin):
    """What every job of a run needs, sent to each worker once, also to those that come later."""

    name = HELD

    def __init__(self, value: Any) -> None:
        self.value = value


held_here: list[Any] = []  # without a cluster


def held() -> Any:
    """Inside a job: what the run was opened with; the same object for all jobs of a process."""
    if held_here:
        return held_here[-1]
    plugin = get_worker().plugins[HELD]
    assert isinstance(plugin, Held)
    return plugin.value


def worker_number() -> int:
    """Inside a job: 0, 1, ... on a cluster of this machine; 0 elsewhere."""
    name = "0" if held_here else str(get_worker().name)
    return int(name) if name.isdecimal() else 0


@dataclass
class Engine:
    """Runs jobs; `open_engine` makes one.

    Attributes:
        workers: processes; 0 is this one.
        dashboard: the address of Dask's page about the run; None without one.
    """

    workers: int
    dashboard: str | None = None
    _client: Client | None = field(default=None, repr=False)
    _scheduler: str | None = None

    def run(
        self, work: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result | Lost]]:
        """Each job with its result, as they are done.

        Raises:
            ConnectionError: the scheduler is gone.
            Exception: what a job raised; the others are given up.
        """
        if self._client is None:
            for job in jobs:
                yield job, work(job)
            return
        try:
            yield from self._on_cluster(self._client, work, iter(jobs))
        except (CommClosedError, CancelledError, NoValidWorkerError, TimeoutError) as error:
            raise ConnectionError(_gone(self._scheduler)) from error

    def _on_cluster(
        self, client: Client, work: Callable[[Job], Result], jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Result | Lost]]:
        running: dict[Any, tuple[Any, Job]] = {}
        completed = dask_as_completed()

        def fill() -> None:
            for job in islice(jobs, max(0, self._places(client) - len(running))):
                future = client.submit(work, job, pure=False)
                running[future.key] = future, job
                completed.add(future)

        fill()
        while running:
            future = next(completed)
            job = running.pop(future.key)[1]
            yield job, _result(future)
            fill()

    def _places(self, client: Client) -> int:
        """Jobs under way at once: one a worker here, so that none dies of its neighbour's fault; on
        a cluster that grows with the work, more than it has workers."""
        if self._scheduler is None:
            return self.workers
        return 2 * sum(client.nthreads().values()) + 8


def _result(future: Any) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        return Lost(
            f"{error.allowed_failures + 1} workers died on this shard, as they do when an image "
            "takes all memory"
        )


def _gone(scheduler: str | None) -> str:
    name = f"the scheduler at {scheduler}" if scheduler else "the scheduler"
    return f"{name} is gone; the same command goes on from what is written"
