"""A map that takes seconds: computed beside the kernel's loop, until something else is wanted."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Interrupted(Exception):
    """Something else is wanted."""


class Slow:
    """One computation at a time; a new one takes the place of the last.

    Args:
        progress: is told, in the kernel's own thread, the share that is done.
    """

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._pool = ThreadPoolExecutor(1, "rollout-slow")
        self._number = 0  # of the computation that is wanted
        self._running: tuple[Future, Callable[[Future], object]] | None = None

    @property
    def running(self) -> bool:
        return self._running is not None

    def start(
        self,
        compute: Callable[[Callable[[float], None]], Any],
        then: Callable[[Future], object],
    ) -> None:
        """Compute, and call `then` in this thread; at once where no loop runs, as in a script.

        Args:
            compute: is given what to report the share to that is done; that ends it with an
                exception once nobody wants it any more.
            then: is given the finished future.
        """
        self.stop()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            future: Future = Future()
            try:
                future.set_result(compute(self._progress))
            except Exception as error:
                future.set_exception(error)
            then(future)
            return
        number = self._number

        def report(share: float) -> None:
            if number != self._number:
                raise Interrupted
            loop.call_soon_threadsafe(self._report, number, share)

        running = self._pool.submit(compute, report)
        self._running = running, then
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish, number))

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._number += 1
        if self._running is not None:
            self._running[0].cancel()  # where it waits for its predecessor to end
        self._running = None

    def wait(self) -> None:
        """Until it is done, for code that asks for the result."""
        if self._running is not None:
            self._running[0].exception()
            self._finish(self._number)

    def close(self) -> None:
        self.stop()
        self._pool.shutdown(wait=False)

    def _report(self, number: int, share: float) -> None:
        if number == self._number:
            self._progress(share)

    def _finish(self, number: int) -> None:
        if number == self._number and self._running is not None:
            (future, then), self._running = self._running, None
            then(future)
