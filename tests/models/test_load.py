"""Any network and image: prepared as it expects, or refused in one sentence, and left as it was."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import left_as_it_was, redraw, small_vit
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from rollout import UnsupportedNetworkError, explain, load_model, wrap_model
from rollout.models.model import Model

pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}


def tiny(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    """A timm network of 32 x 32 pixels and 2 x 2 patches, decided enough to give gradients."""
    return redraw(timm.create_model(name, **{**SMALL, "img_size": 32, **options}))


@pytest.fixture
def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    return Image.fromarray(noise)


# Preprocessing


@pytest.mark.parametrize(("size", "grid"), [(32, (2, 2)), ((32, 64), (2, 4)), ((64, 32), (4, 2))])
def test_the_input_size_is_the_networks_own(
    size: int | tuple[int, int], grid: tuple[int, int], photo: Image.Image
) -> None:
    model = wrap_model(tiny(img_size=size))
    assert model.layout.grid_size == grid
    images = model.images([photo, photo])
    assert images.shape == (2, 3, 16 * grid[0], 16 * grid[1])
    assert explain(model, [photo, photo]).map.shape == (2, *grid)


def test_options_reach_timm(photo: Image.Image) -> None:
    model = load_model("vit_tiny_patch16_224", pretrained=False, device="cpu", img_size=64, **SMALL)
    assert model.layout.grid_size == (4, 4) and model.num_classes == 5


def test_a_greyscale_network_gets_greyscale_images(photo: Image.Image) -> None:
    model = wrap_model(tiny(in_chans=1))
    assert model.images(photo).shape == (1, 1, 32, 32)
    assert len(model.mean) == len(model.std) == 1
    explanation = explain(model, [photo, photo], target=[1, 2])
    assert explanation.pictures.shape == (2, 32, 32, 3)
    torch.testing.assert_close(explanation.pictures[..., 0], explanation.pictures[..., 2])


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_channels_repeat_the_colours_and_it_is_said(
    channels: int, photo: Image.Image
) -> None:
    network = tiny(in_chans=channels)
    with pytest.warns(UserWarning, match=f"images of {channels} channels: .* are repeated") as said:
        model = wrap_model(network)
    assert said[0].filename == __file__
    images, colours = model.images(photo), wrap_model(tiny()).images(photo)
    for channel in range(channels):
        torch.testing.assert_close(images[:, channel], colours[:, channel % 3])
    explanation = explain(model, torch.randn(2, channels, 32, 32), target=[1, 2])
    assert explanation.map.shape == (2, 2, 2)
    assert explanation.pictures.shape == (2, 32, 32, 3)


def test_weights_for_other_channels_give_the_answer_of_the_colours(photo: Image.Image) -> None:
    """timm repeats pretrained weights over the channels, scaled: six see what three see."""
    network = tiny()
    weight = network.patch_embed.proj.weight.detach()
    six = tiny(in_chans=6)
    doubled = {**network.state_dict(), "patch_embed.proj.weight": weight.repeat(1, 2, 1, 1) / 2}
    six.load_state_dict(doubled)
    with pytest.warns(UserWarning, match="6 channels"):
        model = wrap_model(six)
    expected = network.eval()(wrap_model(network).images(photo))
    torch.testing.assert_close(model.network(model.images(photo)), expected, atol=1e-4, rtol=1e-4)


def test_a_network_of_five_channels_and_its_own_transform(photo: Image.Image) -> None:
    five = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), lambda x: x[[0, 1, 2, 0, 1]]]
    )
    model = wrap_model(tiny(in_chans=5), transform=five)  # warns of nothing
    assert model.images(photo).shape == (1, 5, 32, 32)


@pytest.mark.parametrize("size", [224.0, 0, (32,), (32, 32, 3), "32", (32.0, 32)])
def test_an_image_size_that_makes_no_sense(size: Any) -> None:
    with pytest.raises(ValueError, match="image_size must be a number of pixels or .*got"):
        load_model("vit_tiny_patch16_224", pretrained=False, image_size=size, **SMALL)


def test_pictures_undo_the_normalisation(photo: Image.Image) -> None:
    model = wrap_model(tiny())
    resized = photo.resize((32, 32))
    picture = model.pictures(model.images(Image.new("RGB", (40, 40), (255, 102, 0))))
    torch.testing.assert_close(picture[0, 3, 4], torch.tensor([1.0, 0.4, 0.0]), atol=1e-5, rtol=0)
    assert resized.size == (32, 32)


def test_the_users_own_transform_and_labels(photo: Image.Image) -> None:
    transform = transforms.Compose(
        [
            transforms.Resize((32, 48)),
            transforms.ToTensor(),
            transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        ]
    )
    names = ("cat", "dog", "bird", "fish", "car", "house", "tree")
    model = wrap_model(small_vit(), transform=transform, labels=list(names), name="mine")
    assert model.layout.grid_size == (4, 6) and model.labels == names and model.name == "mine"
    assert model.mean == pytest.approx((0.1, 0.2, 0.3))
    explanation = explain(model, [photo, photo], target=["dog", "tree"])
    assert explanation.target == (1, 6) and explanation.labels == ("dog", "tree")
    expected = transforms.ToTensor()(photo.resize((48, 32), Image.Resampling.BILINEAR))
    torch.testing.assert_close(
        explanation.pictures[0].permute(2, 0, 1), expected, atol=2e-2, rtol=0
    )


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            transforms.ToTensor(),
            r"does not take .* shape \(3, 224, 224\); give wrap_model the tran",
        ),
        (lambda image: image, r"transform must turn an RGB image into .*, got Image"),
        (lambda image: torch.zeros(1, 3, 32, 48), r"got torch.float32 of shape \(1, 3, 32, 48\)"),
        (transforms.PILToTensor(), "got torch.uint8"),
    ],
)
def test_a_transform_that_does_not_fit(transform: Callable, message: str) -> None:
    network = small_vit().train()
    with left_as_it_was(network), pytest.raises(ValueError, match=message):
        wrap_model(network, transform=transform)


def test_a_wrong_number_of_labels() -> None:
    with pytest.raises(ValueError, match="got 3 labels for a network with 5 classes"):
        wrap_model(tiny(), labels=["a", "b", "c"])


def test_a_network_without_a_classifier_has_no_imagenet_labels(photo: Image.Image) -> None:
    model = wrap_model(tiny(num_classes=0))
    assert model.labels is None and model.num_classes == 0
    explanation = explain(model, photo)
    assert explanation.map.shape == (1, 2, 2) and explanation.method == "attention_rollout"
    assert explanation.target is None and explanation.title() == "attention rollout"


# Readouts


@pytest.mark.parametrize(
    ("name", "options", "prefix", "readout"),
    [
        ("vit_tiny_patch16_224", {}, 1, (0,)),
        ("vit_tiny_patch16_224", {"reg_tokens": 3}, 4, (0,)),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, 1, (1, 2, 3, 4)),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}, 0, (0, 1, 2, 3)),
        (
            "vit_tiny_patch16_224",
            {"global_pool": "avg", "class_token": False, "fc_norm": True, "reg_tokens": 2},
            2,
            (2, 3, 4, 5),
        ),
        ("deit_tiny_distilled_patch16_224", {}, 2, (0, 1)),
    ],
)
def test_the_classifier_reads_these_tokens_and_no_others(
    name: str, options: dict[str, Any], prefix: int, readout: tuple[int, ...], photo: Image.Image
) -> None:
    network = tiny(name, **options)
    model = wrap_model(network)
    assert model.layout.num_prefix_tokens == prefix and model.layout.readout_tokens == readout
    images = model.images([photo, photo]).requires_grad_()
    kept: list[Tensor] = []
    with network.blocks[-1].register_forward_hook(lambda *call: kept.append(call[2])):
        logits = network(images)
    gradient = torch.autograd.grad(logits[:, 1].sum(), kept[0])[0]  # (batch, tokens, channels)
    read = gradient.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    assert tuple(read) == readout
    assert explain(model, [photo, photo], target=1).map.shape == (2, 2, 2)


# Networks that cannot be explained


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {}, "ResNet cannot be rolled out: it ran without any attention"),
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (1, 1, 1, 1), "embed_dim": 24},
            "SwinTransformer cannot be rolled out: windows of 49 tokens in 3 blocks",
        ),
    ],
)
def test_networks_without_a_token_graph(name: str, options: dict, message: str) -> None:
    network = timm.create_model(name, **options).train()
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=message):
        wrap_model(network)


# Images


def test_a_batch_of_tensors_equals_its_images_one_by_one(photo: Image.Image) -> None:
    model = wrap_model(tiny(img_size=(32, 64)))
    pictures = [photo, photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    batch = model.images(pictures)
    together = explain(model, batch, target=[1, 2])
    for index, picture in enumerate(pictures):
        alone = explain(model, picture, target=index + 1)
        torch.testing.assert_close(together.map[index], alone.map[0], atol=1e-5, rtol=1e-3)
    assert batch.grad is None and not batch.requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 48), r"must be \(batch, .* of shape \(3, 32, 48\)"),
        (torch.zeros(0, 3, 32, 48), "at least one image"),
        (torch.zeros(2, 1, 32, 48), r"\(2, 1, 32, 48\), its transform makes \(3, 32, 48\)"),
        (torch.zeros(2, 3, 48, 32), r"\(2, 3, 48, 32\), its transform makes \(3, 32, 48\)"),
        (torch.full((2, 3, 32, 48), torch.nan), r"not finite .*image \[0, 1\]; check the weights"),
        ([], "empty list of images"),
    ],
)
def test_images_that_make_no_sense(images: Any, message: str) -> None:
    model = wrap_model(small_vit())
    with left_as_it_was(model.network), pytest.raises(ValueError, match=message):
        explain(model, images)


def test_a_missing_image() -> None:
    model = wrap_model(small_vit())
    with left_as_it_was(model.network):
        with pytest.raises(FileNotFoundError, match="no image file"):
            explain(model, Path("nothing.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I", "F", "YCbCr", "HSV"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500)])
def test_every_kind_of_image_can_be_explained(mode: str, size: tuple[int, int]) -> None:
    model = wrap_model(small_vit())
    explanation = explain(model, Image.new(mode, size))
    assert explanation.map.shape == (1, 4, 6) and explanation.map.isfinite().all()


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", ["raw_attention", "attention_rollout", "gradient_rollout"])
def test_other_precisions_agree_with_float32(dtype: torch.dtype, method: str) -> None:
    network = small_vit()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)  # so that half precision has digits to agree in
    images = torch.randn(2, 3, 32, 48)
    expected = explain(wrap_model(network), images, method=method, target=[1, 2])
    model = wrap_model(copy.deepcopy(network).to(dtype))
    with left_as_it_was(model.network):
        explanation = explain(model, images, method=method, target=[1, 2])
    assert model.dtype == dtype and explanation.map.dtype == torch.float32
    largest = expected.map.max().item()
    torch.testing.assert_close(explanation.map, expected.map, atol=0.05 * largest, rtol=0.1)


def test_logits_that_are_not_numbers() -> None:
    model = wrap_model(small_vit())
    with torch.no_grad():
        model.network.head.bias[2] = torch.nan
    for method in ("raw_attention", "attention_rollout", "gradient_rollout"):
        with left_as_it_was(model.network), pytest.raises(ValueError, match="not finite .*NaN"):
            explain(model, torch.randn(2, 3, 32, 48), method=method)


# What is left behind


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(training: bool, photo: Image.Image) -> None:
    model = wrap_model(small_vit(drop_rate=0.5))
    network = model.network.train(training)
    network.cls_token.requires_grad_(False)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    network.norm.register_forward_hook(lambda *call: None)
    with left_as_it_was(network):
        explain(model, [photo, photo], target=[1, 2])


class Broken(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        raise RuntimeError("broken in the middle")


def test_nothing_is_left_behind_when_the_network_fails(photo: Image.Image) -> None:
    model = wrap_model(small_vit())
    model.network.train()
    model.network.blocks[2].mlp = Broken().train()
    with left_as_it_was(model.network), pytest.raises(RuntimeError, match="^broken in the middle"):
        explain(model, [photo, photo])
    assert torch.is_grad_enabled()


def test_a_model_is_put_in_eval_mode_and_on_its_device() -> None:
    model = wrap_model(small_vit().train(), device="cpu")
    assert not model.network.training and model.device == torch.device("cpu")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        wrap_model(small_vit(), device="gpu")


def test_loading_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model("deit_tiny_patch16_224", pretrained=False, device="cpu", **SMALL)
    assert isinstance(model, Model) and model.mean == pytest.approx((0.485, 0.456, 0.406))
