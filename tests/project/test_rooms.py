"""The rooms of `src/rollout`: each imports itself and those before it, and `maths` little else."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from imports import loaded, module_name
from rerun_notebooks import code_cells
from rooms import (
    ARITHMETIC,
    LAWS,
    ROOMS,
    ROOMS_OF_MATHS,
    ROOT,
    SOURCES,
    STANDARD,
    all_imports,
    circle,
    downward_imports,
    files,
    foreign_imports_of_maths,
    is_within,
    matplotlib_elsewhere,
    strangers,
)

import rollout


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
    assert foreign(more, ("rollout.settings", "rollout.errors")) == []


NAMED = re.compile(r"(?:from|import|-m) (rollout(?:\.\w+)+)")
OUTSIDE = ("tests", "benchmarks", "tools", "notebooks", "Makefile")


def text_of(path: Path) -> str:
    """Of a notebook its code: what it printed may be of another day."""
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))


@pytest.mark.parametrize("place", OUTSIDE)
def test_every_module_that_is_named_outside_exists(place: str) -> None:
    """In code that a test or a notebook holds as text, too."""
    below = [path for end in ("py", "ipynb") for path in (ROOT / place).rglob(f"*.{end}")]
    paths = [path for path in below or [ROOT / place] if path != Path(__file__)]
    named = {(path, name) for path in paths for name in NAMED.findall(text_of(path))}
    assert named
    ours = {module_name(path, SOURCES) for path in files(SOURCES)}
    assert [f"{path}: {name}" for path, name in sorted(named) if name not in ours] == []


def test_no_file_or_folder_is_named_as_a_public_name() -> None:
    """`from rollout import explain` would give one or the other, by what was imported before."""
    directly = {path.stem for path in (SOURCES / "rollout").iterdir()}
    assert {"maths", "settings"} <= directly
    assert directly.isdisjoint(rollout.__all__)
