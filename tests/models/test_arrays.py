"""Arrays, tensors and wide greys become the picture that a person sees in them."""

import io
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rollout.models import arrays
from rollout.models.images import load_image, separate

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 5, 3), np.uint8)
GREY = np.linspace(0, 1, 30).reshape(6, 5)


@pytest.mark.parametrize(
    "source",
    [
        COLOUR,
        np.moveaxis(COLOUR, 2, 0),
        COLOUR / 255,
        COLOUR.astype(np.float32),
        COLOUR.astype(np.int64),
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        {"image": Image.fromarray(COLOUR), "label": 3},
        {"img": COLOUR},
    ],
    ids=["last", "first", "share", "float", "int64", "tensor", "tensor first", "row", "img"],
)
def test_one_picture_in_many_clothes(source: object) -> None:
    np.testing.assert_array_equal(load_image(source), COLOUR)


def test_a_file_in_memory_and_a_row_that_was_not_decoded() -> None:
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG")
    for source in (file, {"image": {"bytes": file.getvalue(), "path": None}}):
        np.testing.assert_array_equal(load_image(source), COLOUR)


def test_truth_values_and_alpha() -> None:
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(np.asarray(load_image(mask))[..., 1], [[255, 0], [0, 255]])
    layer = np.dstack([COLOUR, np.full((6, 5), 0, np.uint8)])
    assert (np.asarray(load_image(layer)) == 255).all()


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 8, 3), (4, 5, 3), (4, 5, 1)])
def test_channels_that_may_be_at_either_end_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"may have its channels first or last; give PIL.Image"):
        load_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 4, 5), (5, 4)), ((5, 4, 3), (4, 5)), ((4, 3), (3, 4))]
)
def test_sizes_that_could_be_channels(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    assert load_image(np.zeros(shape, np.uint8)).size == size


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 7), np.uint8), r"1, 3 or 4 channels; got shape \(2, 5, 7\)"),
        (np.zeros(5), r"got shape \(5,\)"),
        (np.zeros((0, 5), np.uint8), "has no pixels"),
        (np.zeros((4, 5), complex), "array of numbers, got complex128"),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(array)


FULL = {
    "shares": GREY.astype(np.float32),
    "one infinity": np.where(GREY == GREY[3, 3], np.inf, GREY).astype(np.float32),
    "16 bits": (65535 * GREY).astype(np.uint16),
}
SCALED = {
    "a little above 1": (1.001 * GREY).astype(np.float32),
    "signed": (2 * GREY - 1).astype(np.float32),
    "12 bits in floats": (4095.5 * GREY).astype(np.float32),
    "12 bits": (4095 * GREY).astype(np.uint16),
    "8 bits in 16": (255 * GREY).astype(np.uint16),
    "a million": (1e6 * GREY).astype(np.int32),
    "CT numbers": (4000 * GREY - 1000).astype(np.int32),
}


@pytest.mark.parametrize("kind", FULL)
def test_greys_of_a_usual_range_are_taken_as_they_are(kind: str) -> None:
    seen = np.asarray(load_image(Image.fromarray(FULL[kind])), float)[..., 0]
    expected = 255 * np.nan_to_num(GREY)
    if kind == "one infinity":
        expected[3, 3] = 255
    np.testing.assert_allclose(seen, expected, atol=1.01)


@pytest.mark.parametrize("kind", SCALED)
def test_scientific_greys_go_from_black_to_white_and_it_is_said(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(SCALED[kind])
    image.save(tmp_path / "a.tiff")
    for source in (image, SCALED[kind], tmp_path / "a.tiff"):
        with pytest.warns(UserWarning, match="scaled from its lowest number .* to its highest"):
            seen = np.asarray(load_image(source), float)[..., 0]
        np.testing.assert_allclose(seen, 255 * GREY, atol=1.1)  # rounded down twice


def test_it_is_said_once() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for factor in (10, 20):
            load_image((factor * GREY).astype(np.float32))
    assert len(said) == 1


def test_bands_make_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(size=(41, 7)).astype(np.float32)
    with pytest.warns(UserWarning):
        whole = np.asarray(load_image(Image.fromarray(values)))
    monkeypatch.setattr(arrays, "BAND", 20)
    with pytest.warns(UserWarning):
        np.testing.assert_array_equal(load_image(Image.fromarray(values)), whole)


def test_a_large_float_image_needs_no_copies_of_itself() -> None:
    image = Image.new("F", (4000, 3000), 0.5)  # 48 MB, which Pillow keeps out of Python's sight
    tracemalloc.start()
    assert load_image(image).getpixel((0, 0)) == (127, 127, 127)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 3000 * 4 * 3  # three bands in double precision, whatever the size


def test_images_are_told_apart_from_lists_of_images() -> None:
    four = np.stack([COLOUR, COLOUR[::-1]])
    assert len(separate(four)) == 2 and len(separate(torch.from_numpy(four))) == 2
    assert len(separate(COLOUR)) == 1 and len(separate("scene_cat_dog")) == 1
    assert len(separate({"image": [COLOUR, COLOUR], "label": [1, 2]})) == 2
    assert len(separate(path for path in ("a.png", "b.png"))) == 2
    with pytest.raises(ValueError, match="empty list of images"):
        separate(iter(()))
