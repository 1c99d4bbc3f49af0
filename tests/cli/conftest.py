"""Where every command runs: an empty folder, with a small demo model and an image at hand."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from helpers import redraw
from PIL import Image
from safetensors.torch import save_file

from rollout.cli import main as cli
from rollout.models import load

TINY = "vit_tiny_patch16_224"
GEOMETRY: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": 64}


@pytest.fixture(autouse=True)
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small random demo model of three classes, and an empty working directory."""
    network = redraw(timm.create_model(TINY, num_classes=3, **GEOMETRY), std=0.2)
    data = tmp_path / "data"
    data.mkdir()
    path = data / "demo.safetensors"
    save_file({name: value.half() for name, value in network.state_dict().items()}, path)
    card = {
        "classes": ["cat", "dog", "bird"],
        "geometry": {"architecture": TINY, **GEOMETRY},
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0},
        "sha256": sha256(path.read_bytes()).hexdigest(),
    }
    (data / "demo.json").write_text(json.dumps(card))
    monkeypatch.setattr(load, "DEMO_WEIGHTS", path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "both.png")
    return tmp_path / "both.png"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `rollout explain ...`."""
        try:
            code = cli.main(["explain", "--device", "cpu", *map(str, arguments)])
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run
