"""How many cases are tried, and the table of how they ended."""

import random
from collections.abc import Callable, Generator
from pathlib import Path
from zlib import crc32

import pytest
from tally import Area, table

AREAS = pytest.StashKey[list[Area]]()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to a hostile path must not lie in the checkout, nor at home."""
    for folder in ("deep/er", "home"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "own"))


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Callable[..., Area]:
    """Makes areas of which the cases are counted; the test fails at its end if any case failed."""
    every: int | None = request.config.getoption("--fuzz-cases")
    seed = crc32(request.node.nodeid.encode())

    def make(name: str, cases: int = 60) -> Area:
        """`cases` are tried in the usual run; they take about a second."""
        area = Area(name, cases if every is None else every, random.Random(seed))
        for stash in (request.node.stash, request.config.stash):
            stash.setdefault(AREAS, []).append(area)
        return area

    return make


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """All cases are tried before any fails the test."""
    result = yield
    for area in pyfuncitem.stash.get(AREAS, []):
        area.verdict()
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    areas = terminalreporter.config.stash.get(AREAS, [])
    if areas:
        terminalreporter.section("hostile cases")
        for line in table(areas):
            terminalreporter.write_line(line)
