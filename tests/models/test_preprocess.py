"""What a network says of its images, and what is made of that: sizes, channels, normalisation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import small_vit
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from rollout.models.preprocess import (
    apply_transform,
    as_size,
    check_batch,
    default_transform,
    normalisation,
    stack,
)

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
OTHER_CHANNELS = pytest.mark.filterwarnings("ignore:.* takes images of .* channels")


@pytest.mark.parametrize(
    ("given", "size"), [(1, (1, 1)), (24, (24, 24)), ((3, 5), (3, 5)), ([3, 5], (3, 5))]
)
def test_a_size_is_one_number_or_two(given, size):
    assert as_size(given) == size


@pytest.mark.parametrize(
    "given", [0, -1, (3, 0), (0, 3), (3,), (3, 4, 5), 3.0, (3.0, 4), "3", None]
)
def test_a_size_of_nothing_is_refused(given):
    with pytest.raises(ValueError, match="image_size must be a number of pixels or .* got"):
        as_size(given)


class Said(nn.Module):
    """A network of a few layers that says some things of itself."""

    def __init__(self, *layers: nn.Module, **said: object) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        for name, value in said.items():
            setattr(self, name, value)


CONFIG = SimpleNamespace(image_size=40, model_type="vit")
TOWERS = SimpleNamespace(vision_config=SimpleNamespace(image_size=[24, 56]), model_type="vit")


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({}, (224, 224)),  # timm's own default
        ({"image_size": 48}, (48, 48)),
        ({"config": CONFIG, "image_size": 48}, (40, 40)),
        ({"config": TOWERS}, (24, 56)),
        ({"config": CONFIG, "patch_embed": SimpleNamespace(img_size=(16, 32))}, (16, 32)),
        ({"config": CONFIG, "patch_embed": SimpleNamespace(img_size=None)}, (40, 40)),
        ({"visual": Said(image_size=32), "image_size": 48}, (32, 32)),
    ],
)
def test_the_size_is_what_the_network_says_or_what_is_asked_for(said, size):
    assert default_transform(Said(**said))(PHOTO).shape == (3, *size)
    assert default_transform(Said(**said), 8)(PHOTO).shape == (3, 8, 8)
    assert default_transform(Said(**said), (8, 16))(PHOTO).shape == (3, 8, 16)


@OTHER_CHANNELS
@pytest.mark.parametrize(
    ("convolution", "channels"),
    [
        (nn.Conv2d(5, 8, 8, 8), 5),  # cuts the image up: these are its channels
        (nn.Conv2d(5, 8, (1, 8), (1, 8)), 5),
        (nn.Conv2d(1, 8, 7, 4), 1),
        (nn.Conv2d(5, 8, 7, 4), 3),  # a stem's pixels overlap, and may be those of features
        (nn.Conv2d(5, 8, 1), 3),
        (nn.Conv2d(5, 8, 4, 8), 3),
        (nn.Linear(5, 8), 3),
    ],
)
def test_channels_are_those_of_a_first_convolution_that_cuts_the_image(convolution, channels):
    network = Said(nn.Identity(), convolution, nn.Conv2d(7, 7, 2, 2), image_size=16)
    expected = channels if isinstance(convolution, nn.Conv2d) else 7
    assert default_transform(network)(PHOTO).shape == (expected, 16, 16)


def test_without_a_convolution_an_image_has_three_channels():
    assert default_transform(Said(nn.Linear(5, 8), image_size=16))(PHOTO).shape == (3, 16, 16)


@OTHER_CHANNELS
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_means_of_colours_are_repeated_and_of_grey_averaged(channels):
    network = small_vit(in_chans=channels)
    network.pretrained_cfg = {"mean": (0.1, 0.2, 0.6), "std": (0.2, 0.3, 0.7)}
    mean, std = normalisation(default_transform(network))
    if channels == 1:
        assert mean == pytest.approx((0.3,)) and std == pytest.approx((0.4,))
    else:
        assert mean == pytest.approx((0.1, 0.2, 0.6, 0.1, 0.2)[:channels])
        assert std == pytest.approx((0.2, 0.3, 0.7, 0.2, 0.3)[:channels])


def test_the_last_normalisation_counts():
    first, last = Normalize((0.1,) * 3, (0.2,) * 3), Normalize((0.3, 0.4, 0.5), (0.6, 0.7, 0.8))
    for steps in ([ToTensor(), first, last], [ToTensor(), first, last, nn.Identity()]):
        mean, std = normalisation(Compose(steps))
        assert mean == pytest.approx((0.3, 0.4, 0.5)) and std == pytest.approx((0.6, 0.7, 0.8))
    for without in (Compose([Resize(8), ToTensor()]), lambda image: image):
        assert normalisation(without) == ((0.0,), (1.0,))
    processor = SimpleNamespace(image_mean=[0.1, 0.2], image_std=[0.3, 0.4])
    assert normalisation(processor) == ((0.1, 0.2), (0.3, 0.4))


def test_what_open_clip_left_on_its_tower_is_used():
    tower = Said(image_mean=(0.1, 0.2, 0.3), image_std=[0.4, 0.5, 0.6], image_size=(16, 24))
    mean, std = normalisation(default_transform(tower))
    assert mean == pytest.approx((0.1, 0.2, 0.3)) and std == pytest.approx((0.4, 0.5, 0.6))
    half_said = normalisation(default_transform(Said(image_mean=(0.1,) * 3)))
    assert half_said == normalisation(default_transform(Said()))


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (torch.zeros(3, 4), r"torch.float32 of shape \(3, 4\)$"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "torch.uint8 of shape"),
        (torch.zeros(1, 3, 4, 4), "record_attention.*takes volumes"),
        (torch.zeros(1, 1, 3, 4, 4), r"of shape \(1, 1, 3, 4, 4\)$"),
        (np.zeros((3, 4, 4)), "got ndarray$"),
        (PHOTO, "got Image$"),
    ],
)
def test_a_transform_that_makes_no_image_is_named(made, named):
    with pytest.raises(ValueError, match=f"transform must turn an RGB image into .*{named}"):
        apply_transform(lambda image: made, PHOTO)


def test_a_batch_is_of_one_size():
    images = [torch.rand(3, 4, 6), torch.rand(3, 4, 6)]
    assert_close(stack(images)[1], images[1])
    with pytest.raises(ValueError, match=r"such as \(3, 4, 6\) and \(3, 6, 4\), which cannot"):
        stack([*images, torch.rand(3, 6, 4)])
    check_batch(torch.rand(1, 3, 4, 6))
    for batch in (images[0], torch.rand(0, 3, 4, 6), torch.zeros(2, 3, 4, 6, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="an image tensor must be .*, at least one image"):
            check_batch(batch)
