"""The rooms of `src/rollout` and their laws; each law gives what breaks it, as lines."""

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from imports import Import, imports_of, module_name

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"
# A module or a folder each; the last ones stand at the door, and may import everything.
ROOMS = (
    "errors",
    "settings",
    "names",
    "files",
    "maths",
    "capture",
    "plots",
    "models",
    "explanations",
    "demo",
    "vit_explain",
    "collection",
    "comparison",
    "cli",
    "explorer",
    "__main__",
    "batch",
    "__init__",
)
ARITHMETIC = ("torch", "numpy", "scipy")
ROOMS_OF_MATHS = ("rollout.maths", "rollout.settings", "rollout.errors")
STANDARD = frozenset(sys.stdlib_module_names)


# Where files and imports lie


def files(sources: Path, room: str = "") -> list[Path]:
    return sorted((sources / "rollout" / room).rglob("*.py"))


def all_imports(sources: Path, room: str = "") -> list[Import]:
    return [found for path in files(sources, room) for found in imports_of(path, sources)]


def room_of(module: str) -> str:
    """ "maths" for `rollout.maths.flow`, "__init__" for `rollout` itself."""
    return [*module.split("."), "__init__"][1]


def imported_file(found: Import, modules: set[str]) -> str:
    """The module that an import of ours reaches: `from rollout.explorer import view` is a file."""
    inner = f"{found.module}.{found.name}"
    return inner if inner in modules else found.module


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# The laws


def strangers(sources: Path) -> list[str]:
    """Files in no known room."""
    return [str(path) for path in files(sources) if _room(path, sources) not in ROOMS]


def _room(path: Path, sources: Path) -> str:
    return room_of(module_name(path, sources))


def downward_imports(sources: Path) -> list[str]:
    """Imports of a room that comes later; for annotations too."""
    modules = {module_name(path, sources) for path in files(sources)}
    return [
        str(found)
        for found in all_imports(sources)
        if found.package == "rollout"
        and _floor(room_of(imported_file(found, modules))) > _floor(_room(found.path, sources))
    ]


def _floor(room: str) -> int:
    """A room that nobody knows lies below all others, so that importing it is a fault."""
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def circle(sources: Path) -> list[str]:
    """One circle of files that import each other, if there is any."""
    modules = {module_name(path, sources) for path in files(sources)}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in all_imports(sources):
        if found.package == "rollout":
            graph[module_name(found.path, sources)].add(imported_file(found, modules))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def foreign_imports_of_maths(sources: Path) -> list[str]:
    return [
        str(found)
        for found in all_imports(sources, "maths")
        if found.package not in STANDARD
        and found.package not in ARITHMETIC
        and not is_within(f"{found.module}.{found.name}", ROOMS_OF_MATHS)
    ]


def matplotlib_elsewhere(sources: Path) -> list[str]:
    """Where it is loaded outside `plots` and the explorer's figure."""
    package = sources / "rollout"
    return [
        str(found)
        for found in all_imports(sources)
        if found.package == "matplotlib"
        and not found.for_annotations
        and not found.path.is_relative_to(package / "plots")
        and found.path != package / "explorer" / "figure.py"
    ]


LAWS = (strangers, downward_imports, circle, foreign_imports_of_maths, matplotlib_elsewhere)
