"""How a command ends: in one line and an exit code, whatever happens."""

import os
import sys
import tempfile
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

FAILURE, USAGE, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141


def run(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; what goes wrong is one line on stderr."""
    try:
        with _warnings_as_lines():
            code = command() or 0
        sys.stdout.flush()  # a full disk shows here
        return code
    except ArgumentError as error:
        return complain(str(error), USAGE)
    except KeyboardInterrupt:
        return complain("interrupted; what was listed is written, nothing else", INTERRUPTED)
    except BrokenPipeError:
        _let_go_of_output()
        return CLOSED_PIPE  # whoever read has read enough, as `head` does
    except MemoryError:
        return complain("out of memory; use a smaller image or model", FAILURE)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        return complain(sentence(error), FAILURE)
    except Exception as error:
        return complain(_last_resort(error), FAILURE)
    finally:
        _let_go_of_output()


def complain(message: str, code: int) -> int:
    """Say what went wrong; returns the exit code."""
    _say("error", message)
    return code


def sentence(error: Exception) -> str:
    """The message on one line; what the operating system said, without its number."""
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return message


def _last_resort(error: Exception) -> str:
    """Nobody thought of this error: its traceback is kept for whoever mends it."""
    said = f"{type(error).__name__}: {sentence(error)}"
    with suppress(OSError):
        with tempfile.NamedTemporaryFile(
            "w", prefix="rollout-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        return f"{said}; please report it with the traceback in {file.name}"
    return said


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Each warning once, on a line of its own, without the code that it came from."""
    said: set[str] = set()

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            _say("warning", str(message))

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="rollout")
        warnings.showwarning = show
        yield


def _say(kind: str, message: str) -> None:
    with suppress(OSError):  # stderr may be closed too
        print(f"rollout: {kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _let_go_of_output() -> None:
    """What cannot be written any more must not be tried again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
