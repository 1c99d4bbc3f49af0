"""Small images and small models for collections."""

from pathlib import Path

import pytest
import timm
from helpers import redraw, small_vit
from image_files import write_images
from safetensors.torch import save_file

from rollout.models.load import wrap_model
from rollout.models.model import Model

LABELS = ["tabby cat", "tiger cat", "dog", "bird", "fish", "red fish", "tree"]


@pytest.fixture
def model() -> Model:
    """Images of 32 x 48 pixels, 4 x 6 patches, 7 classes."""
    return wrap_model(small_vit(), labels=LABELS, name="small", image_size=(32, 48))


@pytest.fixture
def margin_model() -> Model:
    """As `model`, on images of 37 x 53 pixels: a margin below and at the right is in no patch."""
    network = small_vit(img_size=(37, 53))
    return wrap_model(network, labels=LABELS, name="margin", image_size=(37, 53))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for timm's test_vit: 160 pixels, 10 x 10 patches, 1000 classes."""
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(redraw(timm.create_model("test_vit"), std=0.1).state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 10)
    return tmp_path / "photos"
