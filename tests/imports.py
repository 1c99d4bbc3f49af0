"""What a file imports, read without running it, and what importing it loads."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

LOADED = """
import json, sys
statements, modules = json.loads(sys.argv[1])
exec("\\n".join(statements))
before = set(sys.modules)
for module in modules:
    __import__(module)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@dataclass(frozen=True)
class Import:
    """One name of an import.

    Attributes:
        statement: it alone, such as "from rollout.maths import flow".
        module: where it is taken from, such as "rollout.maths".
        name: what is taken, such as "flow", which may be a module; "" for `import module`.
        for_annotations: whether it stands under `if TYPE_CHECKING` and never runs.
    """

    path: Path
    line: int
    statement: str
    module: str
    name: str
    for_annotations: bool

    @property
    def package(self) -> str:
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.statement}"


def module_name(path: Path, sources: Path) -> str:
    """`rollout.maths.flow` for SOURCES/rollout/maths/flow.py; a package for its __init__.py."""
    parts = path.relative_to(sources).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, sources: Path) -> list[Import]:
    """All of them, in functions and for annotations too; relative ones by their full name."""
    tree = ast.parse(path.read_text())
    package = ".".join(path.relative_to(sources).parts[:-1])
    found = []
    for node, for_annotations in _walk(tree, False):
        for module, name, statement in _names(node, package):
            found.append(Import(path, node.lineno, statement, module, name, for_annotations))
    return found


def _walk(node: ast.AST, for_annotations: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, for_annotations
    skipped = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, for_annotations or child in skipped)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _names(node: ast.AST, package: str) -> Iterator[tuple[str, str, str]]:
    """Module, name and statement of each name that the node imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, "", f"import {alias.name}"
    elif isinstance(node, ast.ImportFrom):
        module = resolve_name("." * node.level + (node.module or ""), package)
        for alias in node.names:
            yield module, alias.name, f"from {module} import {alias.name}"


def loaded(modules: list[str], *, after: list[str]) -> list[str]:
    """What a fresh interpreter loads for the modules and has not loaded for the statements."""
    command = [sys.executable, "-c", LOADED, json.dumps([after, modules])]
    report = subprocess.run(command, capture_output=True, text=True)
    assert report.returncode == 0, report.stderr
    return json.loads(report.stdout)
