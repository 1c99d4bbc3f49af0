"""Open any image file as the RGB picture that a person would see in it."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_MEGAPIXELS = 178  # twice Pillow's warning level: about 700 MB as Pillow keeps RGB


_SIXTEEN_BIT = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """Open an image as 8-bit RGB: upright, on white where transparent, first frame of several.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, or larger than MAX_MEGAPIXELS.
        TypeError: neither a path nor a PIL image.
    """
    if isinstance(source, Image.Image):
        return _as_rgb(ImageOps.exif_transpose(source))
    if not isinstance(source, str | PathLike):
        raise TypeError(
            f"an image must be a path or a PIL image, got {type(source).__name__}; "
            "PIL.Image.fromarray makes one from an array"
        )
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no image file {path}" + (" (a folder)" if path.is_dir() else ""))
    return _open(path)


def check_images(paths: Sequence[Path]) -> None:
    """Open all of them; one error names each one that cannot be."""
    problems = []
    for path in paths:
        try:
            load_image(path)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is whether the picture can be decoded
            with Image.open(path) as image:
                ImageOps.exif_transpose(image, in_place=True)  # a copy of a large image is dear
                return _as_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} has more than {MAX_MEGAPIXELS} megapixels; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read") from error
    except MemoryError:
        raise
    except Exception as error:  # damage makes Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            raise  # the file cannot be read at all; the system says why
        raise ValueError(f"{path} is a damaged or truncated image ({error})") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image)
    if image.mode == "F":
        return _from_floats(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips at 255, which turns a 16-bit picture white."""
    values = np.asarray(image)
    # 32-bit integers ("I") may hold bytes; what is 16-bit by its format uses its whole range.
    shift = 0 if image.mode == "I" and values.max(initial=0) <= 255 else 8
    return Image.fromarray((values >> shift).clip(0, 255).astype(np.uint8)).convert("RGB")


def _from_floats(image: Image.Image) -> Image.Image:
    """Values in [0, 1], as scientific TIFFs have them, would all turn black as bytes."""
    values = np.nan_to_num(np.asarray(image))
    scale = 255 if values.max(initial=0) <= 1 else 1
    return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
