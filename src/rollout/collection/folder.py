"""Where a collection goes: settings, the list of its images, a part for each shard, one lock.

What is no part begins with an underscore, so that `pandas.read_parquet(folder)` reads the parts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from rollout.collection.inputs import COLUMNS, absolute, named_package
from rollout.collection.lock import only_one
from rollout.collection.table import count_file, to_bytes
from rollout.errors import shown
from rollout.files import as_path, whole_file

# Settings that older files lack, and what was then done.
_CAME_LATER = {"backward": "plain"}
SETTINGS, IMAGES, OVERLAYS = "_settings.json", "_images.parquet", "_overlays"


@dataclass(frozen=True)
class Folder:
    """The files of a collection, in a local folder or at an address of fsspec.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    @classmethod
    def at(cls, out: str | Path) -> "Folder":
        if not isinstance(out, str | PathLike):
            raise TypeError(f"a folder must be a path or an address, got {shown(out)}")
        as_path(out)  # or no file can have this name
        return cls(absolute(str(out)).rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self._filesystem()[0], LocalFileSystem)

    def _filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        with named_package(self.url):
            return fsspec.core.url_to_fs(self.url)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Nobody else fills it meanwhile; the system frees the lock of a process that died.

        Raises:
            RuntimeError: somebody else does. At an address there is no lock: two runs at once would
                do the same work twice, and write the same parts.
        """
        if not self.is_local:
            yield
            return
        root = Path(self._filesystem()[1])
        with only_one(root):
            for left in root.glob(".????????.parquet"):  # half files of a run that was killed
                left.unlink(missing_ok=True)
            yield

    def begin(self, settings: Mapping[str, Any]) -> bool:
        """Write the settings, or see that they are those of the run before.

        Returns:
            Whether there was a run before.

        Raises:
            ValueError: it had other settings; the message says which.
        """
        before = self.settings()
        now = json.loads(json.dumps(settings))
        if before is None:
            self._write(SETTINGS, json.dumps(now, indent=1).encode() + b"\n")
            return False
        differ = list(_differences(_CAME_LATER | before, _CAME_LATER | now))
        if differ:
            raise ValueError(
                f"{self.url} was begun with other settings: {'; '.join(differ)}; give another --out"
            )
        return True

    def settings(self) -> dict[str, Any] | None:
        content = self._read(SETTINGS)
        return None if content is None else json.loads(content)

    def read_images(self) -> pd.DataFrame | None:
        """`inputs.list_images` with the number of each image's shard; None before the first run."""
        content = self._read(IMAGES)
        if content is None:
            return None
        try:
            images = pd.read_parquet(BytesIO(content))
            return images.assign(**{name: images[name].tolist() for name in COLUMNS})
        except Exception as error:  # damage makes the reader raise nearly anything
            raise ValueError(
                f"{self.url}/{IMAGES}, the list of the images, is damaged; give another --out"
            ) from error

    def write_images(self, images: pd.DataFrame) -> None:
        stream = BytesIO()
        images.to_parquet(stream, index=False)
        self._write(IMAGES, stream.getvalue())

    def parts(
        self, counts: Callable[[Any], tuple[int, int]] = count_file
    ) -> dict[int, tuple[int, int]]:
        """Number to (rows, errors) of each whole part that is there.

        Args:
            counts: reads them off an open file; pa.ArrowInvalid is for one that is not whole.
        """
        filesystem, root = self._filesystem()
        found: dict[int, tuple[int, int]] = {}
        for path in filesystem.glob(f"{root}/part-*.parquet"):
            number = path.rpartition("part-")[2].removesuffix(".parquet")
            try:
                with filesystem.open(path, "rb") as file:
                    found[int(number)] = counts(file)
            except (pa.ArrowInvalid, ValueError):
                continue  # half a file, as a crash of the machine may leave it: it is done again
        return found

    def write_part(self, number: int, table: pa.Table) -> None:
        """Appears whole or not at all.

        Raises:
            FileNotFoundError: the folder was removed or replaced during the run.
        """
        if not self._filesystem()[0].exists(f"{self._filesystem()[1]}/{SETTINGS}"):
            raise FileNotFoundError(
                f"{self.url} was removed during the run; the same command begins anew"
            )
        self._write(f"part-{number:05d}.parquet", to_bytes(table))

    def write_overlay(self, name: str, content: bytes) -> None:
        self._write(f"{OVERLAYS}/{name}", content)

    def _write(self, name: str, content: bytes) -> None:
        filesystem, root = self._filesystem()
        if self.is_local:
            with whole_file(Path(root) / name) as partial:
                partial.write_bytes(content)
        else:  # an object of a store appears whole
            filesystem.pipe_file(f"{root}/{name}", content)

    def _read(self, name: str) -> bytes | None:
        filesystem, root = self._filesystem()
        try:
            return filesystem.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name in sorted({*before, *now}):
        one, two = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from _differences(one, two, f"{at}{name} ")
        elif one != two:
            yield f"{at}{name} was {_short(one)}, is {_short(two)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
