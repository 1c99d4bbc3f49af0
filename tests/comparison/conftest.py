"""A small network that knows the scenes' classes, and a user's own images with masks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small_vit
from PIL import Image
from torchvision import transforms

from rollout import wrap_model
from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.models.model import Model


@pytest.fixture(scope="session")
def model() -> Model:
    """Images of 32 x 64 pixels, 4 x 8 patches, the scenes' twelve classes."""
    torch.manual_seed(0)
    network = small_vit(img_size=(32, 64), num_classes=len(CLASSES))
    steps = [transforms.Resize((32, 64)), transforms.ToTensor()]
    return wrap_model(network, transform=transforms.Compose(steps), labels=CLASSES, name="small")


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Three scenes as files, with a table: the second image has one target alone."""
    rows = []
    for number in range(3):
        scene = SceneDataset(7, 3, objects=2).scene(number)
        Image.fromarray(scene.image).save(tmp_path / f"image_{number}.png")
        for label, mask in list(scene.masks.items())[: 1 if number == 1 else 2]:
            name = f"mask_{number}_{label}.png"
            Image.fromarray(255 * mask.astype(np.uint8)).save(tmp_path / name)
            rows.append({"path": f"image_{number}.png", "target": label, "mask": name})
    table = tmp_path / "targets.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return table
