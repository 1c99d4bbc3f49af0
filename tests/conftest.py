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


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)
