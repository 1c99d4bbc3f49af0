"""Mutation testing: change one thing in the code, and see whether the tests notice; `make mutants`.

cosmic-ray makes the changes and keeps the results, below runs/mutants/: a run that was stopped goes
on where it stopped, also when other files have changed since. Each mutant is tried in memory, in a
process forked when the libraries are loaded. Of each place in the code one change at most is tried.

Survivors that do no harm stand with the reason in tests/harmless_mutants.toml.
"""

import argparse
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import zip_longest
from pathlib import Path
from typing import Any

import parso  # noqa: F401  before cosmic_ray, which imports its parts in an order that fails
import pytest
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

os.chdir(Path(__file__).parents[1])
SOURCES, TESTS, SESSIONS = Path("src"), Path("tests"), Path("runs", "mutants")
ROOMS = ("maths/[!_]*.py", "capture/[!_]*.py", "models/labels.py", "models/preprocess.py")
MODULES = [path for room in ROOMS for path in sorted(SOURCES.glob(f"rollout/{room}"))]
# Tests of another room, of what a module is for.
ELSEWHERE = {
    "rollout.capture.answer": "models/test_outputs.py",
    "rollout.capture.patch_places": "models/test_patch_places.py",
    "rollout.capture.token_norms": "models/test_audit.py",
}
APART = ("project", "fuzz")  # of no module, and too many cases for each mutant
HARMLESS = TESTS / "harmless_mutants.toml"
ENOUGH = 0.9  # of the mutants are to be killed
PYTEST = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no"]
PYTEST += ["--timeout=0"]  # a busy machine is no fault of a mutant: what counts is processor time
LOOPS = 60  # seconds of it in one test, without end then
HANGS = 900  # seconds for all tests of one mutant
NO_IMPORT = 77  # exit status: the module cannot even be imported, which anybody would notice


class Limit:
    """A plugin of pytest that ends the process when one test takes too long."""

    def pytest_runtest_setup(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, LOOPS)


class Mutated(MetaPathFinder, SourceFileLoader):
    """Serves one module with other code than its file has."""

    def __init__(self, path: Path, code: str) -> None:
        super().__init__(module_name(path), str(path.resolve()))
        self._code = code

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> Any:
        return compile(self._code, self.path, "exec")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCES).with_suffix("").parts)


def tests_of(path: Path) -> tuple[list[str], list[str]]:
    """Files of tests that name the module, and the others of its room; the short ones first."""
    own, name = TESTS / path.parent.name, module_name(path)
    files = [file for file in TESTS.rglob("test_*.py") if file.parent.name not in APART]
    naming = {file for file in files if name in file.read_text()}
    naming |= {TESTS / ELSEWHERE[name]} if name in ELSEWHERE else set()
    named = sorted(naming, key=lambda file: (file.parent != own, file.stat().st_size))
    others = sorted(set(own.glob("test_*.py")) - naming, key=lambda file: file.stat().st_size)
    return list(map(str, named)), list(map(str, others))


def code_of(mutation: MutationSpec) -> str:
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    return mutate_code(mutation.module_path.read_text(), operator, mutation.occurrence)


def change(mutation: MutationSpec) -> str:
    """The line before and after, such as "a + b  ->  a - b"."""
    lines = (text.splitlines() for text in (mutation.module_path.read_text(), code_of(mutation)))
    before, after = next(pair for pair in zip_longest(*lines, fillvalue="") if pair[0] != pair[1])
    return f"{before.strip()}  ->  {after.strip()}"


def load_libraries() -> None:
    """What the tests import stays in memory, but for what is ours, which each mutant imports."""
    files = {file for path in MODULES for some in tests_of(path) for file in some}
    pytest.main([*PYTEST, "--collect-only", "-qq", *sorted(files)])
    ours = tuple(f"{folder.resolve()}{os.sep}" for folder in (SOURCES, TESTS))
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(ours):
            del sys.modules[name]


def run_tests(path: Path, code: str, said: str) -> None:
    """In the forked process: leaves with pytest's exit status."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    with open(said, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.meta_path.insert(0, Mutated(path, code))
    try:
        import_module(module_name(path))
    except BaseException:
        os._exit(NO_IMPORT)
    import hypothesis  # not before pytest, which rewrites it

    hypothesis.settings.register_profile("mutants", deadline=None)  # the machine may be busy
    hypothesis.settings.load_profile("mutants")
    for files in filter(None, tests_of(path)):
        status = pytest.main([*PYTEST, *files], plugins=[Limit()])
        if status:
            os._exit(status)
    os._exit(0)


def tried(path: Path, code: str) -> WorkResult:
    with tempfile.NamedTemporaryFile("r") as said:
        process = multiprocessing.get_context("fork").Process(
            target=run_tests, args=(path, code, said.name)
        )
        process.start()
        for _ in range(HANGS // 10):  # the time in which all of this is stopped does not count
            process.join(10)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said.read(), re.MULTILINE)
    outcomes = {0: TestOutcome.SURVIVED, NO_IMPORT: TestOutcome.INCOMPETENT}
    outcome = outcomes.get(process.exitcode, TestOutcome.KILLED)
    why = failed[0] if failed else f"ended with {process.exitcode}"  # negative: by a signal
    return WorkResult(WorkerOutcome.NORMAL, why, outcome)


def session_of(path: Path) -> str:
    """The file of cosmic-ray's that holds what can be changed in a module, and what came of it."""
    code = sha256(path.read_bytes()).hexdigest()[:12]
    return str(SESSIONS / f"{module_name(path)}-{code}.sqlite")


def known() -> tuple[list[WorkItem], dict[str, WorkResult]]:
    """All changes that can be made, and what came of those that were tried."""
    SESSIONS.mkdir(parents=True, exist_ok=True)
    items, results = [], {}
    for path in MODULES:
        with use_db(session_of(path)) as session:
            if not session.num_work_items:
                init([path], session, {})
            items += session.work_items
            results |= dict(session.results)
    return items, results


def drawn(items: Iterable[WorkItem], seed: int) -> list[WorkItem]:
    """One change of each place in the code, in an order that the seed decides."""

    def rank(item: WorkItem) -> str:
        one = item.mutations[0]
        words = seed, one.module_path.as_posix(), one.start_pos, one.operator_name, one.occurrence
        return sha256(repr(words).encode()).hexdigest()

    places: dict[tuple, WorkItem] = {}
    for item in sorted(items, key=rank):
        places.setdefault((item.mutations[0].module_path, item.mutations[0].start_pos), item)
    return list(places.values())


def run(number: int, seed: int, again: bool) -> list[tuple[MutationSpec, bool]]:
    """Whether each of the first `number` that can be imported was killed."""
    items, results = known()
    found = []
    for item in drawn(items, seed):
        (mutation,), result = item.mutations, results.get(item.job_id)
        if result is None or (again and not result.is_killed):
            result = tried(mutation.module_path, code_of(mutation))
            with use_db(session_of(mutation.module_path)) as session:
                session.set_result(item.job_id, result)
        if result.test_outcome != TestOutcome.INCOMPETENT:
            found.append((mutation, result.is_killed))
            place = f"{mutation.module_path}:{mutation.start_pos[0]}"
            outcome = "killed" if result.is_killed else "survived"
            print(f"{len(found)} {outcome} {place} {change(mutation)}", flush=True)
        if len(found) == number:
            break
    return found


def report(found: Sequence[tuple[MutationSpec, bool]]) -> bool:
    """Prints the survivors and the score of each room; whether that is enough."""
    reasons = tomllib.loads(HARMLESS.read_text())
    unexplained = 0
    for mutation in (mutation for mutation, killed in found if not killed):
        module = module_name(mutation.module_path)
        reason = reasons.get(module, {}).get(change(mutation))
        unexplained += reason is None
        print(f"\n{module}:{mutation.start_pos[0]} survived\n  {change(mutation)}\n  {reason}")
    print("\n| room | mutants | killed |\n|---|---|---|")
    rooms = [mutation.module_path.parent.name for mutation, _ in found]
    for room in sorted(set(rooms)):
        kills = [killed for name, (_, killed) in zip(rooms, found, strict=True) if name == room]
        print(f"| {room} | {len(kills)} | {sum(kills)} ({sum(kills) / len(kills):.1%}) |")
    return unexplained == 0 and sum(killed for _, killed in found) >= ENOUGH * len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=240, help="of mutants to try")
    parser.add_argument("--seed", type=int, default=0, help="decides which")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    arguments = parser.parse_args()
    load_libraries()
    for path in {path.parent: path for path in MODULES}.values():
        result = tried(path, path.read_text())
        if result.is_killed:
            sys.exit(f"{path.parent.name} fails without any change: {result.output}")
    sys.exit(not report(run(arguments.number, arguments.seed, arguments.again)))


if __name__ == "__main__":
    main()
