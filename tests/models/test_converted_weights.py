"""Weights for other sizes and channels: timm, reading the same file by itself, is the authority."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from weights_files import SMALL, TINY, assert_same, loaded, small

from rollout import load_model


@pytest.fixture
def network() -> nn.Module:
    return small()


@pytest.mark.parametrize("image_size", [None, 64, (96, 160)])
@pytest.mark.parametrize("channels", [None, 1, 2, 4, 13])
@pytest.mark.filterwarnings("ignore:VisionTransformer takes images of")
def test_position_embeddings_and_channels_are_converted_as_timm_does(
    image_size: Any, channels: int | None, network: nn.Module, tmp_path: Path
) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    options = {"in_chans": channels, "num_classes": 3, **SMALL}
    overlay = {"file": str(tmp_path / "a.safetensors"), "num_classes": 3}
    expected = timm.create_model(
        TINY, pretrained=True, pretrained_cfg_overlay=overlay, img_size=image_size or 224, **options
    )
    model = load_model(
        TINY, checkpoint=tmp_path / "a.safetensors", image_size=image_size, **options
    )
    assert_same(model.network.state_dict(), expected.state_dict())
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else image_size or (224,) * 2
    )
    assert model.layout.grid_size == (height // 16, width // 16)
    assert model.black_image().shape == (1, channels or 3, height, width)


def test_position_embeddings_are_interpolated(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    found = loaded(tmp_path / "a.safetensors", image_size=(96, 160))["pos_embed"]
    grid = network.pos_embed.detach()[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, (6, 10), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, 1:], resized.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[:, :1], network.pos_embed.detach()[:, :1])


@pytest.mark.parametrize("name", [TINY, "beit_base_patch16_224"])
def test_the_size_that_the_weights_were_trained_at_is_the_default(
    name: str, tmp_path: Path
) -> None:
    network = small(name, img_size=64)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    model = load_model(name, checkpoint=tmp_path / "a.safetensors", **SMALL)
    assert model.layout.grid_size == (4, 4) and model.black_image().shape[-2:] == (64, 64)
    assert_same(model.network.state_dict(), network.state_dict())


def test_a_file_of_wide_images_needs_their_size(tmp_path: Path) -> None:
    network = small(img_size=(64, 96))
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    message = r"pos_embed is \(1, 25, 24\), expected .*; give image_size=\(height, width\), the pix"
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path / "a.safetensors")
    assert_same(loaded(tmp_path / "a.safetensors", image_size=(64, 96)), network.state_dict())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.filterwarnings("ignore:VisionTransformer takes images of")
def test_a_file_decides_its_channels(channels: int, tmp_path: Path) -> None:
    network = small(in_chans=channels)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    assert_same(loaded(tmp_path / "a.safetensors"), network.state_dict())
