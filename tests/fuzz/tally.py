"""Try a call with hostile arguments, and count how it ends: refused in words, taken, or failed."""

import random
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile import bad_value

SRC = str(Path(__file__).parents[2] / "src" / "rollout")

# What may leave the package; its own errors are kinds of ValueError, those of the network of
# OSError. Everything else is a fault of the package, whatever it was given.
MAY_LEAVE = (ValueError, TypeError, OSError)
LONGEST_MESSAGE = 3000
WIDTHS = (8, 9, 8, 8)  # of the columns of the table

Check = Callable[[Any], None]  # raises AssertionError where what was returned is wrong


@dataclass
class Area:
    """The cases of one test, counted.

    Attributes:
        cases: how many to try.
        counts: of "refused", "taken" and "failed".
        failures: kind of failure -> the first case and how many more.
    """

    name: str
    cases: int
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def swap(
        self,
        call: Callable[..., Any],
        good: Callable[[], Mapping[str, Any]],
        *,
        words: Mapping[str, Sequence[str]] = {},
        keep: Sequence[str] = (),
        check: Check | None = None,
        cases: int | None = None,
    ) -> None:
        """Replace an argument of a good call, or two of them, by hostile values.

        Args:
            good: makes arguments that the call takes.
            words: argument to words of which a refusal must have one; by default its own name.
            keep: arguments to leave as they are.
            check: of what comes back where a case is taken.
        """
        names = [name for name in good() if name not in keep]
        for _ in range(cases or self.cases):
            arguments = dict(good())
            chosen = self.rng.sample(names, 2 if len(names) > 1 and self.rng.random() < 0.2 else 1)
            said = []
            for name in chosen:
                text, arguments[name] = bad_value(self.rng, arguments[name])
                said.append(f"{name}: {text}")
            wanted = [word for name in chosen for word in words.get(name, (name,))]
            self.attempt(lambda: call(**arguments), ", ".join(said), wanted, check)  # noqa: B023

    def attempt(
        self,
        call: Callable[[], Any],
        said: str,
        words: Sequence[str] = (),
        check: Check | None = None,
        refusable: bool = True,
    ) -> None:
        """One case.

        Args:
            refusable: False where nothing may leave, as of a command line.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", UserWarning)  # those are sentences for people
                result = call()
                if check is not None:
                    check(result)
        except MAY_LEAVE as error:
            message = str(error)
            named = not words or any(word.lower() in message.lower() for word in words)
            system = isinstance(error, OSError) and error.errno is not None  # in its own words
            if refusable and (system or (named and 0 < len(message) < LONGEST_MESSAGE)):
                self.counts["refused"] += 1
            else:
                self._failed(error, f"{said} -> no sentence about {'/'.join(words)}")
        except Exception as error:
            self._failed(error, said)
        else:
            self.counts["taken"] += 1

    def _failed(self, error: Exception, said: str) -> None:
        self.counts["failed"] += 1
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if frame.filename.startswith(SRC)]
        place = ours[-1] if ours else frames[-1]
        kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        self.failures.setdefault(kind, []).append(f"{said}: {str(error)[:160]!r}")

    def verdict(self) -> None:
        """Fails with the first case of each kind of failure."""
        kinds = [f"{kind} ({len(cases)}): {cases[0]}" for kind, cases in self.failures.items()]
        assert not kinds, f"{self.counts['failed']} cases failed:\n" + "\n".join(kinds)


def table(areas: Sequence[Area]) -> list[str]:
    """Lines for people: cases tried, refused in words, taken, failed, by area."""
    totals: dict[str, Counter[str]] = {}
    for area in areas:
        for name in (area.name, "all"):
            totals.setdefault(name, Counter()).update(area.counts)
    totals["all"] = totals.pop("all", Counter())
    lines = [f"{'area':<24}{'tried':>8}{'refused':>9}{'taken':>8}{'failed':>8}"]
    for name, counts in totals.items():
        numbers = (counts.total(), counts["refused"], counts["taken"], counts["failed"])
        lines.append(
            f"{name:<24}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, WIDTHS, strict=True))
        )
    return lines
