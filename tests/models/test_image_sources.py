"""What people give as an image, to `explain` itself: it works, or the sentence names the cure."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import left_as_it_was, small_vit
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from rollout import explain, load_model, wrap_model
from rollout.demo.samples import sample_path
from rollout.models.image_checks import hidden_share
from rollout.models.images import load_image
from rollout.models.preprocess import default_transform

STEPS = [
    transforms.Resize((32, 48)),
    transforms.ToTensor(),
    transforms.Normalize([0.5] * 3, [0.5] * 3),
]
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 32, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wrap_model(small_vit(), transform=transforms.Compose(STEPS))


def test_every_kind_gives_the_map_of_the_picture(model, tmp_path, monkeypatch):
    picture = Image.fromarray(PIXELS[0])
    picture.save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    tensor = model.images(picture)
    kinds = [
        tmp_path / "a.png", "~/a.png", PIXELS[0], torch.from_numpy(PIXELS[0]), {"image": picture},
        io.BytesIO((tmp_path / "a.png").read_bytes()), [tensor[0]], tensor,
        (path for path in [tmp_path / "a.png"]),
    ]  # fmt: skip
    expected = explain(model, picture, target=2)
    for kind in kinds:
        with left_as_it_was(model.network):
            assert_close(explain(model, kind, target=2).map, expected.map)


def test_a_sample_by_its_name_and_a_file_of_that_name_first(model, tmp_path, monkeypatch):
    by_name, by_path = (
        explain(model, s).map for s in ("scene_cat_dog", sample_path("scene_cat_dog"))
    )
    assert torch.equal(by_name, by_path)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS[0]).save("scene_cat_dog", "PNG")
    assert_close(explain(model, "scene_cat_dog").map, explain(model, PIXELS[0]).map)


def closed_after_with(path: Path) -> Image.Image:
    with Image.open(path) as image:
        pass
    return image


def with_closed_file(path: Path) -> Image.Image:
    with path.open("rb") as file:
        return Image.open(file)


def closed(path: Path) -> Image.Image:
    image = Image.open(path)
    image.close()
    return image


@pytest.mark.parametrize("make", [closed_after_with, with_closed_file, closed])
def test_a_closed_picture(make, tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="closed before its pixels were read; use it inside"):
        load_image(make(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Image.new("RGB", (0, 0)), ValueError, "no pixels, it is 0 x 0"),
        ("https://example.org/a.jpg", FileNotFoundError, "is an address; download it"),
        ("~/nothing.jpg", FileNotFoundError, "no image file /.*nothing.jpg"),
        ("scene_cat_dgo", FileNotFoundError, "no image file scene_cat_dgo"),
        ({"text": "a"}, ValueError, r'under "image"; this one has \[.text.\]'),
        (io.BytesIO(), ValueError, "the file object is not an image"),
    ],
)
def test_what_cannot_be_opened_says_why(model, source, error, message):
    with pytest.raises(error, match=message):
        explain(model, source)


@pytest.mark.parametrize(
    ("name", "content", "cure"),
    [
        ("a.jpg", b"\0\0\0\x18ftypheic" + bytes(200), "HEIC: pip install pillow-heif"),
        ("a.png", bytes(128) + b"DICM" + bytes(50), "DICOM: pip install pydicom"),
        ("a.dcm", bytes(200), "DICOM: pip install pydicom"),
        ("a.svg", b"<svg/>", "SVG: save it as PNG"),
    ],
)
def test_files_of_others_name_what_opens_them(name, content, cure, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{name} is not an image that Pillow can read, but {cure}"
    ):
        load_image(tmp_path / name)


# Many images


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_batches_make_one_explanation(model, batch_size):
    images = model.images(PIXELS)
    targets = [4, 0, 3, 3, 1]
    once = explain(model, images, target=targets, batch_size=5)
    for source in (images, list(PIXELS)):
        found = explain(model, source, target=targets, batch_size=batch_size)
        assert found.target == tuple(targets) and found.labels == once.labels
        assert len(found.hidden) == 5
        for name in ("map", "logits", "probability", "pictures"):
            assert_close(getattr(found, name), getattr(once, name), rtol=1e-4, atol=1e-6)


def test_no_pass_has_more_images_than_the_batch(model, monkeypatch):
    sizes = []
    forward = type(model.network).forward
    monkeypatch.setattr(
        type(model.network), "forward", lambda self, x: sizes.append(len(x)) or forward(self, x)
    )
    explain(model, list(PIXELS) * 4)
    assert sizes == [8, 8, 4]
    sizes.clear()
    explain(model, list(PIXELS) * 2, score=lambda output: output[:, 1] * torch.ones(10))
    assert sizes == [10]  # the score may hold something for each image


def test_a_bad_image_keeps_its_number_and_a_bad_size_is_named(model):
    images = model.images(PIXELS)
    images[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite .* for image \[3\]"):
        explain(model, images, batch_size=2)
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size must be a whole number"):
            explain(model, images, batch_size=wrong)
    with pytest.raises(ValueError, match="got 3 targets for 5 images"):
        explain(model, list(PIXELS), target=[1, 2, 3], batch_size=2)


# What a person would want to be told


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_a_tensor_that_was_not_normalised_is_warned_of(model, top):
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 * top
    with pytest.warns(UserWarning, match=rf"from 0 to {top:.0f} seems not .* in \[-1, 1\]"):
        explain(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, (images / top - 0.5) / 0.5)
        explain(model, torch.zeros(2, 3, 32, 48))
        bright = Image.fromarray(200 + PIXELS[0] // 8)  # brighter than the mean throughout
        explain(model, bright)


def test_without_a_normalisation_the_range_of_pictures_is_right():
    model = wrap_model(small_vit(), transform=transforms.Compose(STEPS[:2]))
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    explain(model, images)
    with pytest.warns(UserWarning, match="from 0 to 255"):
        explain(model, 255 * images)


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (64, 64), (4000, 500)])
def test_what_the_crop_hides_is_known(size):
    network = timm.create_model("deit_tiny_patch16_224")  # crop_pct 0.9
    expected = 1 - 0.9**2 * min(size) / max(size)
    assert hidden_share(size, default_transform(network)) == pytest.approx(expected, abs=0.03)
    assert hidden_share(size, transforms.Compose(STEPS)) == pytest.approx(0, abs=0.02)


def test_a_note_where_more_than_a_third_is_hidden():
    model = load_model("demo", device="cpu")  # the shorter side is what it sees of both
    narrow, wide = (Image.new("RGB", size, "red") for size in ((300, 250), (600, 250)))
    explanation = explain(model, [narrow, wide])
    assert explanation.note(0) == "" and explanation.note(1) == " (the crop hides 58% of it)"
    assert "image (the crop hides 58% of it)" in [a.get_title() for a in explanation.plot().axes]
