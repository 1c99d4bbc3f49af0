"""One run at a time fills a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "_lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Nobody else fills the folder meanwhile; the system frees the lock of a process that died.

    Raises:
        RuntimeError: somebody else does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"{folder} is being filled by another run; wait for its end or give another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
