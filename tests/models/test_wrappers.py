"""Networks inside others, of other channels, precisions and numbers of images; and what is none."""

from typing import Any

import pytest
import timm
import torch
from helpers import left_as_it_was, redraw, small_vit
from networks import TINY, WIDE, hf
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from rollout import gradient_rollout, load_model
from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.explaining import explain
from rollout.models.load import wrap_model
from rollout.models.preprocess import normalisation

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


class Training(nn.Module):
    """As training modules are: the network, a loss, and more."""

    def __init__(self, network: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.loss, self.model, self.head = nn.CrossEntropyLoss(), network, head or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(getattr(answer := self.model(images), "logits", answer))


def pretrained(classes: int = 1000) -> nn.Module:
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, num_classes=classes, embed_dim=24, num_heads=3
    )
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (0.5,) * 3}
    return redraw(network).eval()


def described_by_hugging_face() -> nn.Module:
    return redraw(hf("ViTForImageClassification", "ViTConfig", WIDE)()).eval()


@pytest.mark.parametrize("make", [pretrained, described_by_hugging_face])
@pytest.mark.parametrize(
    "wrap",
    [
        Training,
        lambda network: Training(Training(network)),
        lambda network: nn.Sequential(Training(network), nn.Softmax(dim=-1)),
        lambda network: nn.DataParallel(Training(network)),
        lambda network: AveragedModel(Training(network)),
        lambda network: torch.compile(Training(network), backend="eager"),
    ],
)
def test_a_network_inside_others_keeps_preprocessing_and_labels(make, wrap):
    network = make()
    alone, model = wrap_model(network), wrap_model(wrap(network).eval())
    assert (model.mean, model.std, model.labels) == (alone.mean, alone.std, alone.labels)
    assert model.layout == alone.layout and model.num_classes == alone.num_classes
    images = torch.randn(2, *alone.black_image().shape[1:])
    assert_close(
        explain(model, images, method="attention_rollout").map,
        explain(alone, images, method="attention_rollout").map,
    )


def test_labels_are_those_of_the_classifier_that_answers():
    """A head of one's own on 1000 logits of ImageNet has 1000 classes, and not those."""
    model = wrap_model(Training(pretrained(), nn.Linear(1000, 1000)))
    assert model.num_classes == 1000 and model.labels is None
    assert normalisation(model.transform)[0] == pytest.approx((0.1, 0.2, 0.3))
    model = wrap_model(Training(pretrained(0), nn.Linear(24, 1000)))
    assert model.num_classes == 1000 and model.labels is None


def test_two_networks_that_differ_describe_nothing():
    class Both(nn.Module):
        def __init__(self, other: nn.Module) -> None:
            super().__init__()
            self.student, self.teacher = pretrained(), other

        def forward(self, images: Tensor) -> Tensor:
            return self.student(images)

    other = pretrained()
    assert wrap_model(Both(other)).mean == pytest.approx((0.1, 0.2, 0.3))
    other.pretrained_cfg = {**other.pretrained_cfg, "mean": (0.9, 0.9, 0.9)}
    with pytest.warns(UserWarning, match="nothing in Both says how its images are prepared"):
        wrap_model(Both(other), image_size=32)


# Channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_images_of_any_number_of_channels_have_a_map_and_a_picture(channels):
    network, images = small_vit(in_chans=channels), torch.randn(2, channels, 32, 48)
    model = wrap_model(network, transform=lambda image: images[0])
    found = explain(model, images, target=1)
    assert found.map.shape == (2, 4, 6) and found.pictures.shape == (2, 32, 48, 3)
    assert found.pictures.min() >= 0 and found.pictures.max() <= 1
    found.plot()


def test_the_channels_of_a_picture_are_chosen():
    images = torch.randn(2, 4, 32, 48)
    for chosen in [(3, 0, 1), (2,)]:
        model = wrap_model(
            small_vit(in_chans=4), transform=lambda image: images[0], picture_channels=chosen
        )
        picture = model.pictures(images).permute(0, 3, 1, 2)
        for place, channel in enumerate(chosen if len(chosen) == 3 else chosen * 3):
            both = torch.stack([picture[1, place].flatten(), images[1, channel].flatten()])
            assert torch.corrcoef(both)[0, 1] > 0.999
    for chosen in [(0, 1), (0, 1, 4), (-1,), (0.0,)]:
        with pytest.raises(ValueError, match="one or three of the channels 0 to 3, got"):
            wrap_model(
                small_vit(in_chans=4), transform=lambda image: images[0], picture_channels=chosen
            )


def test_channels_have_their_own_normalisation():
    to_four = lambda image: torch.cat([ToTensor()(image), ToTensor()(image)[:1]])  # noqa: E731
    steps = [Resize((32, 48)), to_four, Normalize([0.4] * 4, [0.2] * 4)]
    model = wrap_model(small_vit(in_chans=4), transform=Compose(steps))
    assert len(model.mean) == 4 and model.pictures(model.black_image()).shape == (1, 32, 48, 3)


# One image a call, precisions


class OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = small_vit()

    def forward(self, images: Tensor) -> Tensor:
        (image,) = images
        return self.tower(image[None])


class Packed(OneByOne):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.tower(image[None]) for image in images])


@pytest.mark.parametrize("kind", [OneByOne, Packed])
def test_a_network_that_takes_one_image_a_call(kind):
    network = kind()
    with left_as_it_was(network.eval()):
        model = wrap_model(network)
        found = explain(model, IMAGES[:1], target=1)
        assert_close(found.map, explain(wrap_model(network.tower), IMAGES[:1], target=1).map)
        with pytest.raises(ValueError, match="one image at a time, got 2; explain them one by one"):
            explain(model, IMAGES, target=1)
        with pytest.raises(UnsupportedNetworkError, match="reaches token"):
            wrap_model(network, grid_size=(6, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_layer_that_takes_the_image_says_the_precision(dtype):
    network = small_vit().to(dtype)
    network.register_parameter("a_scale", nn.Parameter(torch.ones(())))
    network._parameters = dict(reversed(network._parameters.items()))
    network._parameters["cls_token"].data = network._parameters["cls_token"].data.to(dtype)
    assert next(network.parameters()).dtype == torch.float32
    model = wrap_model(network)
    assert model.dtype == dtype
    assert explain(model, IMAGES, target=1).map.dtype == torch.float32


# Where the grid lies


@pytest.mark.parametrize("grid_size", [(7, 28), (28, 7), (2, 98), (98, 2), (1, 196), (196, 1)])
def test_another_grid_of_as_many_patches_is_refused(grid_size):
    network = small_vit(img_size=(112, 112))
    assert wrap_model(network, grid_size=(14, 14)).layout.grid_size == (14, 14)
    with pytest.raises(UnsupportedNetworkError, match="reaches token"):
        wrap_model(network, grid_size=grid_size)


@pytest.mark.parametrize("grid_size", [(24,), 24, (4.0, 6), "4x6"])
def test_a_grid_that_is_none(grid_size):
    with pytest.raises(ValueError, match="grid_size must be two whole numbers"):
        wrap_model(small_vit(), grid_size=grid_size)


# What is no network, and no flat image


class Pipeline:
    model, image_processor = small_vit(), None


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ("demo", "load_model takes a name"),
        (Pipeline(), "pass its .model"),
        (wrap_model(small_vit()), "it is a model already"),
        (None, "load_model loads one"),
    ],
)
def test_what_is_no_network_is_named_with_what_would_do(given: Any, cure: str) -> None:
    with pytest.raises(TypeError, match=f"wrap_model takes a torch.nn.Module, got .*; {cure}"):
        wrap_model(given)


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ("demo", r"pass load_model\('demo'\)"),
        (small_vit(), r"pass wrap_model\(network\)"),
        (Pipeline(), r"pass wrap_model\(pipeline.model\)"),
    ],
)
def test_explain_names_what_makes_a_model(given: Any, cure: str) -> None:
    with pytest.raises(TypeError, match=f"model must be a Model, got .*; {cure}"):
        explain(given, IMAGES)


class Volume(nn.Module):
    """A volume of 4 x 4 x 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv3d(1, 24, 8, 8), small_vit().blocks
        self.head = nn.Linear(24, 5)

    def forward(self, volumes: Tensor) -> Tensor:
        tokens = self.patches(volumes).flatten(2).mT
        return self.head(self.blocks(tokens).mean(dim=1))


def test_volumes_are_refused_with_what_takes_them():
    network, volumes = Volume().eval(), torch.randn(2, 1, 16, 16, 24)
    with pytest.raises(UnsupportedNetworkError, match=r"volumes or films: .*record_attention\("):
        wrap_model(network)
    with pytest.raises(ValueError, match=r"shape \(1, 16, 16, 24\); record_attention\("):
        wrap_model(small_vit(), transform=lambda image: volumes[0])
    assert record_attention(network, volumes).attentions[0].shape == (2, 3, 12, 12)


def test_an_image_size_is_named_only_where_one_would_help():
    network = hf("ViTForImageClassification", "ViTConfig", WIDE)()
    cures = "another image_size: it takes 32 x 48, or .*interpolate_pos_encoding=True"
    with left_as_it_was(network.eval()), pytest.raises(ValueError, match=cures):
        wrap_model(network, image_size=(64, 96))

    class Other(nn.Module):
        def forward(self, images: Tensor, prompt: str) -> Tensor:
            return images

    with pytest.raises(ValueError, match="Other does not take") as caught:
        wrap_model(Other())
    assert "another image_size" not in str(caught.value)


class Positions(nn.Module):
    """A network that says nothing of its size: 9 patches of 8 pixels beside a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 24, 8, 8), small_vit().blocks
        self.cls, self.positions = (nn.Parameter(torch.randn(1, n, 24)) for n in (1, 10))
        self.head = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.cls.expand(len(patches), -1, -1), patches], dim=1)
        return self.head(self.blocks(tokens + self.positions)[:, 0])


class Raising(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError(f"the size of the height is wrong whatever it is: {images.shape}")


class Film(nn.Module):
    """Frames side by side, all patches of all frames in one graph."""

    def __init__(self, channels_first: bool) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 24, 8, 8), small_vit().blocks
        self.head, self.channels_first = nn.Linear(24, 5), channels_first

    def forward(self, films: Tensor) -> Tensor:
        films = films.transpose(1, 2) if self.channels_first else films
        patches = self.patches(films.flatten(0, 1)).flatten(2).mT
        return self.head(self.blocks(patches.reshape(len(films), -1, 24)).mean(dim=1))


@pytest.mark.parametrize("channels_first", [True, False])
def test_films_are_refused_with_what_takes_them(channels_first):
    network = Film(channels_first).eval()
    with left_as_it_was(network):
        with pytest.raises(UnsupportedNetworkError, match=r"or films: .*record_attention\("):
            wrap_model(network, image_size=(16, 24))


@pytest.mark.parametrize(
    ("kind", "tubelet", "tokens"), [("VideoMAE", 2, 24), ("Vivit", [2, 8, 8], 25)]
)
def test_films_are_recorded_as_they_are(kind, tubelet, tokens):
    options = {**TINY, "image_size": (32, 24), "num_frames": 4, "tubelet_size": tubelet}
    network = hf(f"{kind}ForVideoClassification", f"{kind}Config", options)().eval()
    films = torch.randn(2, 4, 3, 32, 24)
    with left_as_it_was(network):
        with pytest.raises(UnsupportedNetworkError, match=r"or films: .*record_attention\("):
            wrap_model(network)
        record = record_attention(network, films)
    expected = network(films, output_attentions=True)  # transformers leaves hooks of its own
    assert_close(record.logits, expected.logits)
    assert record.num_tokens == tokens
    for ours, theirs in zip(record.attentions, expected.attentions, strict=True):
        assert_close(ours, theirs)
    rows = gradient_rollout(record.attentions, record.gradients(1))
    assert_close(rows.sum(dim=-1), torch.ones(2, tokens))


@pytest.mark.filterwarnings("ignore:nothing in .* says how its images")
def test_the_size_that_is_named_works_and_is_not_guessed_from_words():
    with pytest.raises(ValueError, match=r"another image_size: it takes 24 x 24 \("):
        wrap_model(Positions(), image_size=(32, 48))
    assert wrap_model(Positions(), image_size=24).layout.grid_size == (3, 3)
    with pytest.raises(ValueError, match="the size of the height is wrong") as caught:
        wrap_model(Raising())
    assert "another image_size" not in str(caught.value)
    four = small_vit(in_chans=4)  # its channels are at fault, not its size
    with pytest.raises(ValueError, match="the transform it was trained with") as caught:
        wrap_model(four, transform=lambda image: torch.zeros(3, 32, 48))
    assert "another image_size" not in str(caught.value)


def test_the_demo_says_what_it_was():
    demo = load_model("demo", device="cpu")
    assert demo.outputs == "multi_label" and demo.multi_label
