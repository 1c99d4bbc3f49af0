"""Arrays, tensors and wide greys become the picture that a person sees in them."""

import io
import subprocess
import sys
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


@pytest.mark.parametrize("kind", ["Pillow", "array"])
def test_a_large_float_image_needs_no_copies_of_itself(kind: str) -> None:
    image = Image.new("F", (4000, 3000), 0.5)  # 48 MB, which Pillow keeps out of Python's sight
    source = image if kind == "Pillow" else np.asarray(image)
    tracemalloc.start()
    assert load_image(source).getpixel((0, 0)) == (127, 127, 127)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bytes_of_it = 0 if kind == "Pillow" else 4000 * 3000
    assert peak < bytes_of_it + 40 * arrays.BAND  # a few bands in double precision, at any size


MEASURED = """
import resource, sys
from rollout.models.images import load_image
load_image("scene_cat_dog")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
width, height = load_image(sys.argv[1]).size
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(used * 1024 / (width * height))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has other units")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "F", "I;16", "L", "P"])
def test_a_large_file_needs_as_much_again_as_its_picture(mode: str, tmp_path: Path) -> None:
    """4 bytes a pixel for the RGB, at most 4 for what the file holds, and the bands."""
    file = tmp_path / ("a.tiff" if mode in ("F", "I;16") else "a.png")
    Image.new(mode, (6000, 4000)).save(file)
    run = subprocess.run([sys.executable, "-c", MEASURED, file], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 8 + 40 * arrays.BAND / (6000 * 4000)


def test_images_are_told_apart_from_lists_of_images() -> None:
    four = np.stack([COLOUR, COLOUR[::-1]])
    assert len(separate(four)) == 2 and len(separate(torch.from_numpy(four))) == 2
    assert len(separate(COLOUR)) == 1 and len(separate("scene_cat_dog")) == 1
    assert len(separate({"image": [COLOUR, COLOUR], "label": [1, 2]})) == 2
    assert len(separate(path for path in ("a.png", "b.png"))) == 2
    with pytest.raises(ValueError, match="empty list of images"):
        separate(iter(()))
