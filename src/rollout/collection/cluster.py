"""The processes that do the jobs: a cluster of this machine, one that exists, or this one alone."""

import importlib.util
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError

from rollout.collection.engine import KILLS, Engine, Held, held_here

_CONFIG = {
    "distributed.scheduler.allowed-failures": KILLS - 1,
    "distributed.scheduler.worker-ttl": None,  # a clock that jumps is no dead worker
    "distributed.nanny.pre-spawn-environ": {
        "TQDM_DISABLE": 1,  # many processes, one bar
        # Dask's own value gives all freed memory back at once, which costs two thirds more time.
        "MALLOC_TRIM_THRESHOLD_": 2**30,
        "MALLOC_MMAP_THRESHOLD_": 2**25,
        "MALLOC_ARENA_MAX": 2,  # one for the network, one for the images opened meanwhile
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1),
    },
    # A worker samples its own stack all the time, and keeps an hour of it: a gigabyte.
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "60s",  # a busy machine starts processes slowly
    # A worker that grows too large is replaced; one that is paused would wait for ever.
    **{f"distributed.worker.memory.{measure}": False for measure in ("target", "spill", "pause")},
    "distributed.admin.log-format": "%(message)s",
}


@contextmanager
def open_engine(
    workers: int | None = None,
    *,
    scheduler: str | None = None,
    value: Any = None,
    dashboard: bool = True,
) -> Iterator[Engine]:
    """An engine, closed afterwards.

    Args:
        workers: processes on this machine; 0 is this process alone, None one for each GPU, or
            without one for each core.
        scheduler: the address of a cluster that exists, such as tcp://10.0.0.1:8786, instead.
        value: what `held` gives in each job.
        dashboard: whether Dask's page is served; it needs bokeh.

    Raises:
        ConnectionError: there is no scheduler at that address, or workers die as they start.
    """
    if scheduler is None and workers == 0:
        held_here.append(value)
        try:
            yield Engine(0)
        finally:
            held_here.pop()
        return
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        stack.enter_context(_quiet())
        if scheduler is None:
            workers = default_workers() if workers is None else workers
            client = _start_cluster(stack, workers, dashboard and has_dashboard())
        else:
            client = stack.enter_context(_connect(scheduler))
        _hand_out(client, Held(value))
        shown = client.dashboard_link if dashboard and has_dashboard() else None
        yield Engine(workers or len(client.nthreads()), shown, client, scheduler)


def _start_cluster(stack: ExitStack, workers: int, dashboard: bool) -> Client:
    with _no_interrupts():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any port that is free
            scheduler_kwargs={"dashboard": dashboard},
            silence_logs=logging.CRITICAL,
        )
    return stack.enter_context(Client(stack.enter_context(cluster)))


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """A terminal sends Ctrl-C to all processes; the workers shall leave it to this one.

    The thread that starts them, now and later, inherits what is blocked here, and so do they.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it unblocks the signal where it is first needed
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_out(client: Client, plugin: Held) -> None:
    try:
        client.register_plugin(plugin)
    except CommClosedError as error:
        raise ConnectionError(
            "a worker died as it started, as they do when memory is short; try fewer --workers"
        ) from error


def _connect(scheduler: str) -> Client:
    try:
        return Client(scheduler, timeout=20)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(
            f"there is no Dask scheduler at {scheduler}; start one with `dask scheduler`, or leave "
            "--scheduler out"
        ) from error


def default_workers() -> int:
    """One for each GPU, or without one for each core that this process may use."""
    gpus = torch.cuda.device_count()
    if gpus:
        return gpus
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def page_of(engine: Engine) -> str:
    """Where Dask's page about a run is, or what it would need, in a sentence."""
    if engine.dashboard is None:
        return "Dask has a page about the run where bokeh is installed: pip install bokeh"
    return f"Dask's page about this run: {engine.dashboard}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells of each worker that dies with a traceback; what matters is in the table."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
