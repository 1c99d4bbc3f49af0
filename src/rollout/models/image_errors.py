"""Why a file cannot be opened as an image, in one sentence, and what would open it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

# How a file begins that is an image, only not one of Pillow's: at which byte, what stands there.
_OTHERS = {
    "HEIC": ((4, b"ftyphei"), (4, b"ftyphev"), (4, b"ftypmif1"), (4, b"ftypmsf1")),
    "DICOM": ((128, b"DICM"),),
    "SVG": ((0, b"<svg"), (0, b"<?xml")),
}
_CURES = {
    "HEIC": "pip install pillow-heif, and call pillow_heif.register_heif_opener() first",
    "DICOM": "pip install pydicom, and give pydicom.dcmread(path).pixel_array",
    "SVG": "save it as PNG",
}
_BY_ENDING = {".heic": "HEIC", ".heif": "HEIC", ".dcm": "DICOM", ".svg": "SVG"}


@contextmanager
def explained(file: Path | IO[bytes], name: str | None, most: int) -> Iterator[None]:
    """Errors of Pillow as sentences.

    Args:
        name: what the message calls it; None is its path.
        most: megapixels that may be opened.
    """
    called = name or str(file)
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{called} has more than {most} megapixels; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{called} is not an image that Pillow can read{_cure(file)}") from error
    except (MemoryError, Warning):
        raise
    except Exception as error:  # damage makes Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            raise  # the file cannot be read at all; the system says why
        raise ValueError(f"{called} is a damaged or truncated image ({error})") from error


def _cure(file: Path | IO[bytes]) -> str:
    """What would open it, where that is known: "" otherwise."""
    kind = _BY_ENDING.get(file.suffix.lower()) if isinstance(file, Path) else None
    start = _start(file)
    for name, marks in _OTHERS.items():
        if any(start[at : at + len(mark)] == mark for at, mark in marks):
            kind = name
    return "" if kind is None or not start else f", but {kind}: {_CURES[kind]}"


def _start(file: Path | IO[bytes]) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(132)
    file.seek(0)
    return file.read(132)


def quietly() -> warnings.catch_warnings:
    """Pillow's warnings are of no use here: what matters is whether the picture can be decoded."""
    return warnings.catch_warnings(action="ignore")
