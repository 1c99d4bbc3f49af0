"""Arrays as pictures: which axis is channels, and what range of numbers is black to white."""

import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with alpha
BAND = 2**20  # pixels that are converted at a time: copies of a whole large image are dear


def pictures_of(array: np.ndarray) -> list[Image.Image]:
    """An array of one picture, or with four axes of several, as RGB.

    Axes: (height, width), (height, width, channels) or (channels, height, width). Channels are the
    axis at either end that has 1, 3 or 4 entries; where both have, nobody can tell, and it is an
    error.

    Numbers: bytes and true/false are taken as they are, see `grey_range` for the others.

    Raises:
        ValueError: no picture, or one whose channels may be at either end.
    """
    if array.ndim == 4 and len(array):
        return [picture_of(one) for one in array]
    return [picture_of(array)]


def picture_of(array: np.ndarray) -> Image.Image:
    """One picture, RGB; see `pictures_of`."""
    laid_out = _channels_last(array)
    if not laid_out.size:
        raise ValueError(f"an image of shape {array.shape} has no pixels")
    if laid_out.dtype.kind not in "buif":
        raise ValueError(f"an image must be an array of numbers, got {array.dtype}")
    if laid_out.dtype == bool:
        laid_out = laid_out.astype(np.uint8) * np.uint8(255)
    if laid_out.dtype != np.uint8:
        low, high = grey_range((band for _, band in _bands(laid_out)), laid_out.dtype.name)
        whole = np.empty(laid_out.shape, np.uint8)
        for top, band in _bands(laid_out):
            whole[top : top + len(band)] = as_bytes(band, low, high)
        laid_out = whole
    image = Image.fromarray(laid_out[..., 0] if laid_out.shape[2] == 1 else laid_out)
    return on_white(image) if image.has_transparency_data else image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """RGB, white where the image is transparent."""
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def grey_picture(image: Image.Image) -> Image.Image:
    """A Pillow image of wide numbers ("I", "I;16", "F") as RGB, band by band.

    Pillow's own conversion clips at 255, which turns such pictures white or black.
    """
    low, high = grey_range((band for _, band in _bands(image)), _type(image))
    picture = Image.new("RGB", image.size)
    for top, band in _bands(image):
        picture.paste(Image.fromarray(as_bytes(band, low, high)).convert("RGB"), (0, top))
    return picture


def grey_range(bands: Iterator[np.ndarray] | list[np.ndarray], kind: str) -> tuple[float, float]:
    """The numbers that are shown black and white.

    - Floats in [0, 1] are shares of white, and whole floats in [0, 255] bytes.
    - 16 bits that reach the upper half of their range use all of it; other integers up to 255
      are bytes.
    - All else (12 bits in 16, counts, CT numbers, elevations) goes from its own lowest to its own
      highest number, with a warning: it is the eye's choice, and may not be the training's.

    Args:
        bands: all numbers of one picture.
        kind: their type, such as "uint16".
    """
    low, high, whole = np.inf, -np.inf, True
    for band in bands:
        finite = band[np.isfinite(band)] if band.dtype.kind == "f" else band
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            whole = whole and (band.dtype.kind != "f" or bool((finite == np.rint(finite)).all()))
    if low > high:  # no number at all
        return 0.0, 1.0
    usual = _usual_range(low, high, whole, kind)
    if usual is not None:
        return usual
    warnings.warn(
        f"pixels of {kind} do not use a range that pictures have; each such image is scaled from "
        "its lowest number (black) to its highest (white). Scale it yourself as in the network's "
        "training if that was otherwise",
        stacklevel=2,
    )
    return low, high


def _usual_range(low: float, high: float, whole: bool, kind: str) -> tuple[float, float] | None:
    """The range of the type, where the numbers fit it; None where only the data can say."""
    if kind.startswith("float") and low >= 0 and high <= 1:
        return 0.0, 1.0
    if kind != "uint16" and whole and low >= 0 and high <= 255:
        return 0.0, 255.0
    if not kind.startswith("float") and low >= 0 and 32768 <= high <= 65535:
        return 0.0, 65280.0  # 256 of them are a byte
    return (low, low + 1) if low == high else None


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers as uint8, `low` as 0 and `high` as 255; what is no number is black."""
    with np.errstate(invalid="ignore"):
        scaled = np.subtract(values, low, dtype=np.float64) * (255 / ((high - low) or 1.0))
    numbers = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    return numbers.clip(0, 255).astype(np.uint8)


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(height, width, channels)."""
    if array.ndim == 2:
        return array[..., None]
    ends = [array.ndim == 3 and array.shape[axis] in CHANNELS for axis in (0, -1)]
    if not any(ends):
        raise ValueError(
            "an image must be an array (height, width), (height, width, channels) or (channels, "
            f"height, width) with 1, 3 or 4 channels; got shape {array.shape}"
        )
    if all(ends):
        raise ValueError(
            f"an array of shape {array.shape} may have its channels first or last; give "
            "PIL.Image.fromarray(array), with channels last"
        )
    return array if ends[1] else np.moveaxis(array, 0, -1)


def _bands(picture: Image.Image | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The picture in strips: where each begins, and its numbers, (rows, width) and channels."""
    if isinstance(picture, Image.Image):
        width, height = picture.size
    else:
        height, width = picture.shape[:2]
    step = max(1, BAND // width)
    for top in range(0, height, step):
        if isinstance(picture, Image.Image):
            yield top, np.asarray(picture.crop((0, top, width, min(top + step, height))))
        else:
            yield top, picture[top : top + step]


def _type(image: Image.Image) -> str:
    return {"F": "float32", "I": "int32"}.get(image.mode, "uint16")
