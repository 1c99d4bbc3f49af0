"""How many cases are tried, and the table of how they ended."""

import random
from collections.abc import Callable, Iterator
from zlib import crc32

import pytest
from tally import Area, table

AREAS = pytest.StashKey[list[Area]]()


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Iterator[Callable[..., Area]]:
    """Makes areas of which the cases are counted; fails at the end if any case failed."""
    every: int | None = request.config.getoption("--fuzz-cases")
    seed = crc32(request.node.nodeid.encode())
    made: list[Area] = []

    def make(name: str, cases: int = 60) -> Area:
        """`cases` are tried in the usual run; they take about a second."""
        area = Area(name, cases if every is None else every, random.Random(seed))
        made.append(area)
        request.config.stash.setdefault(AREAS, []).append(area)
        return area

    yield make
    for area in made:
        area.verdict()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    areas = terminalreporter.config.stash.get(AREAS, [])
    if areas:
        terminalreporter.section("hostile cases")
        for line in table(areas):
            terminalreporter.write_line(line)
