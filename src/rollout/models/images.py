"""Open whatever a person may call an image as the RGB picture that they would see in it."""

import io
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from rollout.files import as_path, find_sample
from rollout.models.arrays import grey_picture, on_white, picture_of, pictures_of
from rollout.models.image_errors import explained, quietly

# Twice Pillow's warning level: about 700 MB as Pillow keeps RGB (4 bytes a pixel), and as much
# again while the file's own pixels are converted, be they RGBA or floats.
MAX_MEGAPIXELS = 178

_WIDE = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
_ROW = ("image", "img")  # where rows of `datasets` keep it

KINDS = (
    "a path, a PIL image, an array or tensor, a binary file, the name of a sample, or a row of "
    'datasets with an "image"'
)


def load_image(source: Any) -> Image.Image:
    """Open an image as 8-bit RGB: upright, on white where transparent, first frame of several.

    Args:
        source: a path (`~` is the home folder), a sample's name such as "scene_cat_dog", a PIL
            image, a binary file such as BytesIO, a row of `datasets`, or an array or a tensor of
            uint8, see `arrays.pictures_of`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, closed, empty, or larger than MAX_MEGAPIXELS.
        TypeError: nothing of the kinds above.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    if _is_tensor(source):
        return picture_of(source.detach().cpu().numpy())
    if isinstance(source, np.ndarray):
        return picture_of(source)
    if isinstance(source, Mapping):
        return load_image(_of_row(source))
    if hasattr(source, "read"):
        return _open(source, "the file object")
    if not isinstance(source, str | PathLike):
        raise TypeError(f"an image must be {KINDS}; got {type(source).__name__}")
    return _open(image_path(source), None)


def decode_image(content: bytes, name: str) -> Image.Image:
    """As `load_image`, from the bytes of a file; errors call it `name`."""
    return _open(io.BytesIO(content), name)


def image_path(source: str | PathLike[str]) -> Path:
    """The file meant by a path or by the name of a sample.

    Raises:
        FileNotFoundError: there is none.
    """
    path = as_path(Path(source))
    if path.is_file():
        return path
    sample = find_sample(Path(source))
    if sample is not None:
        return sample
    if "://" in str(source):
        raise FileNotFoundError(f"{source} is an address; download it, and give the file")
    raise FileNotFoundError(f"no image file {path}" + (" (a folder)" if path.is_dir() else ""))


def check_image(path: Path) -> None:
    """Whether a file begins as an image does that may be opened; nothing is decoded.

    Raises:
        OSError, ValueError: as for `load_image`.
    """
    file = image_path(path)
    with explained(file, None, MAX_MEGAPIXELS), quietly(), Image.open(file):
        pass


def check_images(paths: Sequence[Path]) -> None:
    """Look at the beginning of all of them; one error names each one that is no image."""
    problems = []
    for path in paths:
        try:
            check_image(path)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))


def separate(source: Any) -> list[Any]:
    """The images in what may hold several: a list, an iterator, a table's columns, an array of four
    axes. One that stands for itself is a list of one.

    Raises:
        ValueError: none in it.
    """
    if isinstance(source, Mapping) and isinstance(_of_row(source), list | tuple):
        source = _of_row(source)  # rows of `datasets`, cut out as one
    if _is_tensor(source) and source.dim() == 4 and not source.is_floating_point():
        return [one for one in source]
    if isinstance(source, np.ndarray):
        return pictures_of(source)
    alone = isinstance(source, str | PathLike | Image.Image | Mapping | bytes)
    if alone or _is_tensor(source) or hasattr(source, "read") or not isinstance(source, Iterable):
        return [source]
    images = list(source)
    if not images:
        raise ValueError("got an empty list of images; give at least one")
    return images


def _is_tensor(source: Any) -> bool:
    """Of torch, which takes a second to import where nobody needs it."""
    return hasattr(source, "is_floating_point") and hasattr(source, "detach")


def _of_row(row: Mapping[str, Any]) -> Any:
    """The image of a row of `datasets`, also where it was not decoded yet."""
    found = next((row[name] for name in _ROW if name in row), None)
    if found is None and row.get("bytes") is not None:
        return io.BytesIO(row["bytes"])
    if found is None and row.get("path") is not None:
        return row["path"]
    if found is None:
        raise ValueError(f'a row must hold its image under "image"; this one has {list(row)}')
    return found


def _from_pillow(image: Image.Image) -> Image.Image:
    if not image.width * image.height:
        raise ValueError(f"the image has no pixels, it is {image.width} x {image.height}")
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # damage makes Pillow's decoders raise nearly anything
        if not isinstance(error, AssertionError | AttributeError) and "closed" not in str(error):
            raise ValueError(f"the PIL image is damaged or truncated ({error})") from error
        raise ValueError(
            "the PIL image was closed before its pixels were read; use it inside its `with`, or "
            "give the path"
        ) from error
    return _as_rgb(ImageOps.exif_transpose(image))


def _open(file: Path | IO[bytes], name: str | None) -> Image.Image:
    """Decoded inside `explained`; what is done with the numbers may warn."""
    with explained(file, name, MAX_MEGAPIXELS):
        with quietly():
            image = Image.open(file)
        with image:
            with quietly():
                ImageOps.exif_transpose(image, in_place=True)  # a copy of a large image is dear
            return _as_rgb(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE:
        return grey_picture(image)
    return on_white(image) if image.has_transparency_data else image.convert("RGB")
