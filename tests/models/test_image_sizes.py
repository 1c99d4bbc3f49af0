"""Images of any size and shape: the grid follows, or the error says what to do."""

import pytest
import timm
import torch
from helpers import redraw, small_vit
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms.functional import to_tensor

from rollout import UnsupportedNetworkError, explain, load_model, wrap_model

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize(
    ("name", "options", "patch"),
    [
        ("vit_tiny_patch16_224", SMALL, 16),
        ("eva02_tiny_patch14_224", SMALL, 14),
        ("vit_small_patch14_reg4_dinov2", SMALL, 14),
        ("vit_base_patch16_siglip_224", SMALL, 16),
        ("beit_base_patch16_224", SMALL, 16),
        ("deit_tiny_distilled_patch16_224", SMALL, 16),
        ("cait_xxs24_224", SMALL, 16),
        ("naflexvit_base_patch16_gap", SMALL, 16),
    ],
)
def test_an_image_size_that_is_not_square(name, options, patch):
    height, width = 3 * patch, 5 * patch
    model = load_model(name, pretrained=False, image_size=(height, width), **options)
    assert model.layout.grid_size == (3, 5)
    assert model.images(Image.new("RGB", (70, 50))).shape == (1, 3, height, width)
    assert explain(model, torch.randn(2, 3, height, width)).map.shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("swin_tiny_patch4_window7_224", UnsupportedNetworkError, "windows of 49 tokens"),
        ("resnet18", UnsupportedNetworkError, "resnet18: ResNet cannot be rolled out: it ran"),
        ("convit_tiny", UnsupportedNetworkError, "the number of tokens changes on the way"),
    ],
)
def test_an_image_size_for_what_cannot_have_it(name, error, message):
    with pytest.raises(error, match=message):
        load_model(name, pretrained=False, image_size=(48, 80))


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("test_vit", 50, r"another image_size: it takes 48 x 48 \([^;]*$"),
        ("deit_tiny_patch16_224", 8, "another image_size, or none: it takes 224 x 224"),
    ],
)
def test_a_size_that_would_do_is_named(name, image_size, message):
    with pytest.raises(ValueError, match=message):
        load_model(name, pretrained=False, image_size=image_size)


def test_a_network_for_every_shape_follows_the_image():
    """NaFlexViT interpolates its positions to the grid of each image."""
    model = wrap_model(redraw(timm.create_model("naflexvit_base_patch16_gap", **SMALL)))
    prefix = model.layout.num_prefix_tokens
    assert prefix == 4
    for size, grid in [((32, 80), (2, 5)), ((64, 48), (4, 3))]:
        images = torch.randn(2, 3, *size)
        together = explain(model, images, target=[1, 2]).map
        assert together.shape == (2, *grid)
        alone = torch.cat([explain(model, images[i, None], target=i + 1).map for i in range(2)])
        assert_close(together, alone, rtol=1e-3, atol=1e-4 * alone.max().item())


def as_it_is(image: Image.Image) -> torch.Tensor:
    """A transform that leaves every picture its size, to whole patches of 8."""
    return to_tensor(image.resize([max(side // 8, 1) * 8 for side in image.size]))


def test_pictures_that_cannot_be_one_batch():
    model = wrap_model(small_vit(dynamic_img_size=True), transform=as_it_is)
    pictures = [Image.new("RGB", (50, 34)), Image.new("RGB", (24, 64))]
    with pytest.raises(ValueError, match=r"such as \(3, 32, 48\) and \(3, 64, 24\), .* one by one"):
        explain(model, pictures)
    assert [explain(model, one).map.shape for one in pictures] == [(1, 4, 6), (1, 8, 3)]
