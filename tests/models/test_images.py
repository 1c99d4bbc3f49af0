"""Every kind of file that a person may offer as an image."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rollout.models.images import check_images, load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def picture() -> Image.Image:
    """6 rows, 4 columns: red above green, with a blue corner at the top left."""
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[:3], pixels[3:], pixels[0, 0] = RED, GREEN, BLUE
    return Image.fromarray(pixels)


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow reads and cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.gif"])
def test_lossless_formats_keep_every_pixel(name: str, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    loaded = load_image(tmp_path / name)
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(picture))


def test_a_string_a_path_and_an_image_are_the_same(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png")
    for source in (str(tmp_path / "a.png"), tmp_path / "a.png", picture):
        np.testing.assert_array_equal(np.asarray(load_image(source)), np.asarray(picture))


def test_the_first_frame_of_an_animation(picture: Image.Image, tmp_path: Path) -> None:
    second = Image.new("RGB", picture.size, WHITE)
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(load_image(tmp_path / "a.gif"), picture)


def test_a_palette(picture: Image.Image, tmp_path: Path) -> None:
    picture.quantize(4).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), picture)


def test_a_transparent_palette_entry_is_white(picture: Image.Image, tmp_path: Path) -> None:
    palette = picture.quantize(4)
    red = palette.getpixel((3, 0))
    palette.save(tmp_path / "a.png", transparency=red)
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel(at) for at in [(3, 0), (0, 0), (0, 5)]] == [WHITE, BLUE, GREEN]


def test_alpha_lies_on_white(picture: Image.Image, tmp_path: Path) -> None:
    layer = picture.convert("RGBA")
    layer.putalpha(
        Image.fromarray(np.repeat([[0], [0], [0], [255], [255], [128]], 4, 1).astype("u1"))
    )
    layer.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == "RGB"
    assert loaded.getpixel((0, 0)) == WHITE and loaded.getpixel((0, 3)) == GREEN
    np.testing.assert_allclose(loaded.getpixel((0, 5)), (127, 191, 127), atol=1)


def test_grey_with_alpha(tmp_path: Path) -> None:
    grey = Image.merge("LA", [Image.new("L", (4, 6), 50), Image.new("L", (4, 6), 0)])
    grey.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((1, 1)) == WHITE


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 24).reshape(6, 4).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), expected)


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    assert load_image(Image.fromarray(np.full((6, 4), 200, np.uint16))).getpixel((0, 0)) == (
        0,
        0,
        0,
    )


def test_sixteen_bit_colour(picture: Image.Image, tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(picture).astype(">u2") * 257)
    (tmp_path / "a.png").write_bytes(png(4, 6, 16, 2, rows))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("top", [0.5, 1.0, 255.0])
def test_floating_point_keeps_the_range_of_pictures(top: float, tmp_path: Path) -> None:
    values = np.array([[0, top], [top / 5, np.nan]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    grey = np.asarray(load_image(tmp_path / "a.tiff"))[..., 0]
    high = top if top > 1 else int(255 * top)
    np.testing.assert_array_equal(grey, [[0, high], [high // 5, 0]])


def test_thirty_two_bit_integers_may_hold_bytes() -> None:
    assert load_image(Image.new("I", (4, 6), 200)).getpixel((0, 0)) == (200, 200, 200)
    assert load_image(Image.new("I", (4, 6), 51200)).getpixel((0, 0)) == (200, 200, 200)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("RGB", (8, 16), RED).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(load_image(tmp_path / "a.jpg").getpixel((3, 3)), RED, atol=8)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_the_camera_was_held_sideways(name: str, picture: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # shown rotated by 90 degrees clockwise
    picture.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    upright = load_image(tmp_path / name)
    np.testing.assert_array_equal(upright, picture.transpose(Image.Transpose.ROTATE_270))


def test_an_image_in_memory_is_not_changed(picture: Image.Image) -> None:
    picture.getexif()[274] = 6
    assert load_image(picture).size == (6, 4)
    assert picture.size == (4, 6) and picture.getexif()[274] == 6


def test_a_single_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == RED


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # Of 1200 MB of pixels only the header is true; nobody must look at the rest.
    (tmp_path / "a.png").write_bytes(png(20000, 20000, 8, 2, bytes(60001)))
    with pytest.raises(ValueError, match=r"a\.png has more than 178 megapixels; scale it down"):
        load_image(tmp_path / "a.png")


def test_between_warning_and_limit_of_pillow_an_image_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == (6, 4)


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>", b"PK\x03\x04", bytes(1000)])
def test_what_is_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png is not an image that Pillow can read"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image(name: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"a\.\w+ is (a damaged or truncated|not an) image"):
        load_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.ppm", "a.tiff", "a.jp2", "a.webp"])
def test_damage_anywhere_is_a_value_error_or_harmless(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8))
    exif = Image.Exif()
    exif[271] = "a camera"
    noise.save(tmp_path / name, **({} if name in ("a.ppm", "a.jp2") else {"exif": exif}))
    content = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    for _ in range(60):
        damaged = content.copy()
        damaged[rng.integers(0, min(len(content), 120), 3)] = rng.integers(0, 256, 3)
        (tmp_path / name).write_bytes(damaged.tobytes())
        try:
            assert load_image(tmp_path / name).mode == "RGB"
        except ValueError as error:
            assert str(tmp_path / name) in str(error)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no image file .*nothing.png$"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"no image file .* \(a folder\)"):
        load_image(tmp_path)


def test_a_file_that_may_not_be_read_says_why(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied", "a.png")

    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("source", [None, 3, b"a.png"])
def test_what_is_no_kind_of_image(source: object) -> None:
    with pytest.raises(TypeError, match="must be a path, a PIL image, an array .*; got"):
        load_image(source)


def test_one_check_names_every_image_that_cannot_be_opened(
    picture: Image.Image, tmp_path: Path
) -> None:
    picture.save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [tmp_path / name for name in ("bad.png", "good.png", "nothing.png")]
    with pytest.raises(ValueError, match="bad.png is not an image.*; no image file .*nothing.png"):
        check_images(paths)
    check_images(paths[1:2])
