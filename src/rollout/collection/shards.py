"""Which shards a collection has, which of them are there, and doing the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from rollout.collection.engine import Engine, Lost
from rollout.collection.folder import Folder
from rollout.collection.inputs import COLUMNS
from rollout.collection.run import fill
from rollout.collection.table import count
from rollout.collection.task import Shard
from rollout.collection.work import lost_shard


@dataclass(frozen=True)
class Collected:
    """What `collect` leaves.

    Attributes:
        out: the folder, or the address.
        images, rows, errors: counts; an image that broke has one row, with an error.
        done: images that this run did; the others were there.
    """

    out: str
    images: int
    rows: int
    errors: int
    done: int

    def table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, image after image; its columns are those of `collection.table.SCHEMA`."""
        return read_table(self.out, columns)


def read_table(out: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of a collection, or some of its columns, image after image."""
    wanted = None if columns is None else list(dict.fromkeys(["image", *columns]))
    try:
        table = pd.read_parquet(Folder.at(out).url, columns=wanted)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no collection in the folder {out}") from error
    table = table.sort_values("image", kind="stable", ignore_index=True)
    return table if columns is None else table[list(columns)]


def remember(folder: Folder, images: pd.DataFrame, shard_size: int) -> pd.DataFrame:
    """The images of all runs, with the number of each one's shard; new ones come last."""
    before = folder.read_images()
    if before is None:
        known = images.iloc[:0].assign(shard=pd.Series(dtype="int64"))
        new = images
    else:
        known = before
        joined = images.merge(before, on=list(COLUMNS), how="left", indicator=True)
        new = images[(joined["_merge"] == "left_only").to_numpy()]
        if len(new) == len(images):
            raise ValueError(
                f"{folder.url} holds other images, such as {before['path'][0]}; give another --out"
            )
    if not len(new):
        return known
    first = int(known["shard"].max()) + 1 if len(known) else 0
    numbered = new.assign(shard=[first + place // shard_size for place in range(len(new))])
    together = pd.concat([known, numbered], ignore_index=True)
    folder.write_images(together)
    return together


class Work:
    """The shards of a collection: those that are there, and those to do."""

    def __init__(self, images: pd.DataFrame, there: dict[int, tuple[int, int]]) -> None:
        self.images = images
        sizes = images["shard"].value_counts().to_dict()
        self.counts = {number: there[number] for number in sizes if number in there}
        self.missing = {number: size for number, size in sizes.items() if number not in there}

    def _shards(self) -> Iterator[Shard]:
        for number, rows in self.images.groupby("shard"):
            if number in self.missing:
                triples = rows[list(COLUMNS)].itertuples(index=False, name=None)
                yield Shard(int(number), int(rows.index[0]), tuple(triples))

    def do(self, engine: Engine, folder: Folder, progress: bool) -> None:
        to_do = sum(self.missing.values())
        with tqdm(
            total=len(self.images),
            initial=len(self.images) - to_do,
            unit="image",
            disable=None if progress else True,  # None: shown on a terminal only
        ) as bar:
            for shard, result in engine.run(fill, self._shards()):
                if isinstance(result, Lost):
                    lost = lost_shard(shard, result.reason)
                    folder.write_part(shard.number, lost)
                    result = count(lost)
                self.counts[shard.number] = result
                bar.update(len(shard.images))

    def summary(self, folder: Folder) -> Collected:
        rows, errors = (sum(numbers) for numbers in zip(*self.counts.values(), strict=True))
        done = sum(self.missing.values())
        return Collected(folder.url, len(self.images), rows, errors, done)
