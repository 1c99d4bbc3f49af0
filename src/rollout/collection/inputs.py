"""Which images a collection has: files, folders, globs, tables and addresses, as one table.

Addresses are those of fsspec, such as s3://bucket/folder, https://host/image.jpg, or
zip://*.png::photos.zip; a local .zip is opened too.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeAlias

import fsspec
import pandas as pd
from PIL import Image

from rollout.errors import shown
from rollout.files import as_path

COLUMNS = ("path", "target", "mask")
TABLES = (".csv", ".parquet")

Inputs: TypeAlias = str | os.PathLike[str] | pd.DataFrame | Sequence[str | os.PathLike[str]]


def list_images(inputs: Inputs) -> pd.DataFrame:
    """All images of the inputs, each once, in the order of the inputs; folders sorted by name.

    Args:
        inputs: a table with a column `path` and, if wanted, `target` (class index or label) and
            `mask` (path of a picture that is bright where the object is); or one or several of:
            the name of a CSV or Parquet file with such a table, a file, a folder with all below it,
            a glob, a .zip, an address of fsspec. Paths in a table file start from its folder.

    Returns:
        Columns path, target, mask, all of text; "" is none. Local paths are absolute.

    Raises:
        ValueError: an input in which there is no image, or a table without `path`.
        OSError: an input that is not there, or cannot be listed.
        ModuleNotFoundError: a package is missing that opens such addresses, named in the message.
    """
    if isinstance(inputs, pd.DataFrame):
        found = [_read_rows(inputs, "the table", "")]
    else:
        several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
        named = isinstance(several, Sequence) and not isinstance(several, bytes)
        if not named or not all(isinstance(one, str | os.PathLike) for one in several):
            raise TypeError(
                "inputs must be a table, or one or several files, folders, globs or addresses, got "
                f"{shown(inputs)}"
            )
        found = [_expand(os.fspath(one)) for one in several]
    if not found or not sum(map(len, found)):
        raise ValueError("there is no image in the inputs; give files, folders, globs or a table")
    images = pd.concat(found, ignore_index=True).drop_duplicates(ignore_index=True)
    for name in COLUMNS:
        for text in images[name]:
            _check_text(name, text)
    return images


def _check_text(name: str, text: str) -> None:
    """Refuse what no table of UTF-8 can hold, as a file name of another system may be."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {name} {shown(text)} is no text in UTF-8; rename it") from error


def absolute(path: str) -> str:
    """A local path from the root, with one kind of slash; an address as it is."""
    if "://" in path:
        head, separator, archive = path.rpartition("::")
        return head + separator + absolute(archive) if separator else path
    return Path(os.path.abspath(path)).as_posix()


@contextmanager
def named_package(address: str) -> Iterator[None]:
    """Where fsspec misses a package, an error that says which, and for what."""
    try:
        yield
    except ImportError as error:
        raise ModuleNotFoundError(f"{address} needs a package that is not here: {error}") from error


def _expand(given: str) -> pd.DataFrame:
    if "://" not in given and Path(given).suffix.lower() == ".zip":
        given = f"zip://::{given}"
    url = absolute(given)
    if url.lower().endswith(TABLES):
        return _read_table(url, given)
    with named_package(given):
        filesystem, path = fsspec.core.url_to_fs(url)
    if filesystem.isdir(path):
        paths = [name for name in sorted(filesystem.find(path)) if _is_image(name)]
    elif _is_glob(path) and not filesystem.exists(path):
        found = (name for name in filesystem.glob(path) if filesystem.isfile(name))
        paths = sorted(name for name in found if not Path(name).name.startswith("."))
    elif filesystem.exists(path):
        return _rows([url])
    else:
        raise FileNotFoundError(f"no file, folder or address {given}")
    if not paths:
        raise ValueError(f"there is no image in {given}")
    if "://" not in url:
        return _rows(paths)
    _, separator, rest = url.partition("::")
    return _rows([filesystem.unstrip_protocol(name) + separator + rest for name in paths])


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


@cache
def _suffixes() -> frozenset[str]:
    """Of the formats that Pillow opens."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN)


def _is_image(name: str) -> bool:
    """By its name; hidden files, such as those that macOS leaves, are none."""
    file = Path(name)
    return file.suffix.lower() in _suffixes() and not file.name.startswith(".")


def _rows(paths: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame({"path": list(paths)}, dtype=object)
    return table.assign(target="", mask="")


def _read_table(url: str, given: str) -> pd.DataFrame:
    try:
        with named_package(given):
            if url.lower().endswith(".csv"):
                table = pd.read_csv(url, dtype=str, keep_default_na=False)
            else:
                table = pd.read_parquet(url)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{given} is no readable table ({error})") from error
    return _read_rows(table, given, url.rpartition("/")[0])


def _read_rows(table: pd.DataFrame, given: str, folder: str) -> pd.DataFrame:
    if "path" not in table:
        columns = ", ".join(map(str, table.columns))
        raise ValueError(f"{given} has no column path; it has {columns}")
    rows = pd.DataFrame({name: _texts(table, name) for name in COLUMNS}, dtype=object)
    if (rows["path"] == "").any():
        number = int((rows["path"] == "").to_numpy().argmax())
        raise ValueError(f"{given} has no path in row {number + 1}")
    for name in ("path", "mask"):
        rows[name] = [_within(folder, path, name) if path else "" for path in rows[name]]
    return rows


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    if name not in table:
        return [""] * len(table)
    odd = [one for one in table[name] if not pd.api.types.is_scalar(one)]
    odd = [one for one in odd if not isinstance(one, os.PathLike)]
    if odd:
        raise ValueError(f"the column {name} must hold texts, got {shown(odd[0])}")
    return ["" if pd.isna(value) else _text(value) for value in table[name]]


def _text(value: object) -> str:
    """A column of numbers with gaps is one of floats: class 3 must not become 3.0."""
    text = str(value)
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text


def _within(folder: str, path: str, column: str) -> str:
    """A path in a table file starts from the file's folder."""
    try:
        as_path(path)
    except ValueError as error:
        raise ValueError(f"in the column {column}: {error}") from error
    if "://" in path or os.path.isabs(path) or not folder:
        return absolute(path)
    return f"{folder}/{path}" if "://" in folder else absolute(os.path.join(folder, path))
