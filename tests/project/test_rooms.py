"""The rooms of `src/rollout`: each imports itself and those before it, and `maths` little else."""

import sys
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from imports import Import, imports_of, loaded, module_name

import rollout

SOURCES = Path(__file__).parents[2] / "src"
# A module or a folder each; the last ones stand at the door, and may import everything.
ROOMS = (
    "errors",
    "settings",
    "files",
    "maths",
    "capture",
    "plots",
    "models",
    "explanations",
    "demo",
    "vit_explain",
    "collection",
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


# The laws: each gives what breaks it


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


@pytest.mark.parametrize("law", LAWS)
def test_the_rooms_keep_the_law(law: Callable[[Path], list[str]]) -> None:
    assert len(files(SOURCES)) > len(ROOMS)
    assert law(SOURCES) == []


BREACHES = [
    (strangers, "rollout/attic.py", ""),
    (strangers, "rollout/attic/stairs.py", ""),
    (downward_imports, "rollout/capture/a.py", "from rollout.plots import maps"),
    (downward_imports, "rollout/maths/a.py", "def late():\n    import rollout.capture.blocks"),
    (downward_imports, "rollout/cli/a.py", "from rollout import explore"),
    (downward_imports, "rollout/files.py", "from . import maths"),
    (downward_imports, "rollout/explorer/a.py", "from rollout.attic import stairs"),
    (
        downward_imports,
        "rollout/models/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rollout import explanations",
    ),
    (circle, "rollout/maths/a.py", "from . import b"),
    (foreign_imports_of_maths, "rollout/maths/a.py", "import pandas as pd"),
    (foreign_imports_of_maths, "rollout/maths/deep/a.py", "from rollout.files import whole_file"),
    (foreign_imports_of_maths, "rollout/maths/a.py", "from rollout import capture"),
    (matplotlib_elsewhere, "rollout/explorer/a.py", "from matplotlib.figure import Figure"),
    (matplotlib_elsewhere, "rollout/cli/a.py", "def late():\n    import matplotlib.pyplot as plt"),
    (
        matplotlib_elsewhere,
        "rollout/cli/a.py",
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import matplotlib",
    ),
]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Files that keep every law."""
    kept = {
        "__init__": "from rollout.explorer import a",
        "errors": "",
        "files": "from rollout import errors",
        "maths/__init__": "",
        "maths/a": "import math\nimport scipy.sparse\nfrom rollout.settings import Settings",
        "maths/b": "from .a import Settings\nfrom rollout import errors",
        "plots/a": "import matplotlib.pyplot as plt\nfrom rollout.maths.b import Settings",
        "cli/a": "if TYPE_CHECKING:\n    from matplotlib.figure import Figure",
        "explorer/a": "from rollout.plots import a",
        "explorer/figure": "def draw():\n    from matplotlib.figure import Figure",
    }
    for name, source in kept.items():
        write(tmp_path / "rollout" / f"{name}.py", source)
    return tmp_path


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


@pytest.mark.parametrize("law", LAWS)
def test_what_keeps_the_law_is_not_reported(law: Callable[[Path], list[str]], house: Path) -> None:
    assert law(house) == []


@pytest.mark.parametrize(("law", "file", "source"), BREACHES)
def test_what_breaks_the_law_is_reported(
    law: Callable[[Path], list[str]], file: str, source: str, house: Path
) -> None:
    write(house / file, source)
    broken = law(house)
    assert broken and (law is circle or all(line.startswith(str(house / file)) for line in broken))


# What importing loads, in a fresh interpreter


def foreign(modules: list[str], ours: tuple[str, ...]) -> list[str]:
    """Of the modules that were loaded, those that are neither ours nor Python's."""
    return [
        module
        for module in modules
        if module != "rollout" and module.split(".")[0] not in STANDARD
        if not is_within(module, ours)
    ]


def test_the_mathematics_loads_no_more_than_its_three_libraries() -> None:
    modules = [module_name(path, SOURCES) for path in files(SOURCES, "maths")]
    by_libraries = {
        found.statement
        for found in all_imports(SOURCES, "maths")
        if found.package in STANDARD.union(ARITHMETIC)
    }
    more = loaded(modules, after=sorted(by_libraries))
    assert set(modules) <= set(more)
    assert foreign(more, (*ARITHMETIC, *ROOMS_OF_MATHS)) == []


def test_the_settings_load_nothing_heavy() -> None:
    more = loaded(["rollout.settings"], after=[])
    assert "rollout.settings" in more
    assert foreign(more, ("rollout.settings",)) == []


def test_no_file_or_folder_is_named_as_a_public_name() -> None:
    """`from rollout import explain` would give one or the other, by what was imported before."""
    directly = {path.stem for path in (SOURCES / "rollout").iterdir()}
    assert {"maths", "settings"} <= directly
    assert directly.isdisjoint(rollout.__all__)
