"""Open any image file as the RGB picture that a person would see in it."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_MEGAPIXELS = 178  # twice Pillow's warning level: about 500 MB as RGB
_SIXTEEN_BIT = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """Open an image as 8-bit RGB: upright, on white where it is transparent, first frame of several.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, or larger than MAX_MEGAPIXELS.
    """
    if isinstance(source, Image.Image):
        return _as_seen(source)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no image file {path}" + (" (a folder)" if path.is_dir() else ""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _as_seen(image)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} has more than {MAX_MEGAPIXELS} megapixels; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path} is a damaged or truncated image ({error})") from error


def _as_seen(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(upright)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips at 255, which turns a 16-bit picture white."""
    values = np.asarray(image)
    shift = 8 if values.max(initial=0) > 255 else 0
    return Image.fromarray((values >> shift).clip(0, 255).astype(np.uint8)).convert("RGB")
