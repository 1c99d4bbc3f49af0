"""What every test starts from: no display, no network, this environment's kernel, fixed seeds."""

import os

# Set before anything imports the libraries that read them.
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"

import pytest
import torch
from browser import (  # noqa: F401  fixtures and a hook for all tests
    lab,
    lab_browser,
    lab_server,
    pytest_exception_interact,
)
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", action="store_true", help="run what only repeats, too")
    parser.addoption(
        "--fuzz-cases", type=int, metavar="N", help="hostile cases of each call in tests/fuzz"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The same examples in each run; with --every others, which may find what nobody knew of."""
    settings.register_profile("same", derandomize=True)
    settings.load_profile("default" if config.getoption("--every") else "same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked "repeats", unless it is asked for."""
    if not config.getoption("--every"):
        repeating = [item for item in items if item.get_closest_marker("repeats")]
        config.hook.pytest_deselected(items=repeating)
        items[:] = [item for item in items if not item.get_closest_marker("repeats")]


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)
