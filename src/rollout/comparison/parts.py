"""The table of a comparison as files: a Parquet file for each job, read as one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rollout.collection.folder import Folder
from rollout.comparison.rows import COLUMNS

_TEXT = pa.dictionary(pa.int32(), pa.string())
_TYPES = {"target": pa.int32(), "step": pa.float32(), "value": pa.float64()}
_SCHEMA = pa.schema({name: _TYPES.get(name, _TEXT) for name in COLUMNS})


def as_part(table: pd.DataFrame) -> pa.Table:
    """The rows of a job with the types of all parts."""
    return pa.Table.from_pandas(table, _SCHEMA, preserve_index=False)


def count_rows(file: Any) -> tuple[int, int]:
    """(rows, errors) of an open file; there are no rows with errors."""
    return pq.ParquetFile(file).metadata.num_rows, 0


def read_comparison(out: str | Path) -> pd.DataFrame:
    """The table of a comparison, or of what is there of it."""
    folder = Folder.at(out)
    if not folder.parts(count_rows):
        raise FileNotFoundError(f"there is no table in {folder.url}; compare(..., out=) writes one")
    return pd.read_parquet(folder.url, columns=list(COLUMNS))
