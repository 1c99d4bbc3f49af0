"""The explorer on the demo model, and a small model whose grid is no square."""

import pytest
import torch
from explorers import SCENE
from helpers import small_vit

from rollout import explore, load_model, wrap_model


@pytest.fixture(scope="module")
def demo():
    return load_model("demo")


@pytest.fixture(scope="module")
def small():
    """A grid of 4 x 6 patches, three blocks of three heads."""
    torch.manual_seed(0)
    return wrap_model(small_vit(), labels=list("abcdefg"), name="small")


@pytest.fixture
def explorer(demo, tmp_path):
    made = explore(demo, SCENE, output_folder=tmp_path / "saved")
    yield made
    made.close()
