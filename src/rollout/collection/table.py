"""The table of a collection: its columns, and how rows become one Parquet file."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rollout.maths.boxes import find_boxes
from rollout.maths.metrics import mass_on_object, peak_on_object, relative_entropy
from rollout.maths.token_layout import Extent

# One row for each map; an image without a map has one row, with `error`.
SCHEMA = pa.schema(
    {
        "image": pa.int64(),  # its number in the collection
        "path": pa.string(),
        "sha256": pa.string(),  # of the file's bytes
        "height": pa.int32(),  # in pixels, upright
        "width": pa.int32(),
        "method": pa.string(),
        "head_fusion": pa.string(),
        "discard_ratio": pa.float32(),
        "target": pa.int32(),  # class index
        "label": pa.string(),
        "probability": pa.float32(),  # of the target
        "predicted": pa.int32(),
        "predicted_label": pa.string(),
        "predicted_probability": pa.float32(),
        "map": pa.list_(pa.float16()),  # row after row, unscaled
        "rows": pa.int16(),
        "columns": pa.int16(),
        "peak_row": pa.int16(),  # the largest patch
        "peak_column": pa.int16(),
        "entropy": pa.float32(),  # 1 is a map without contrast, 0 a single patch
        "largest_share": pa.float32(),  # of the map's mass, on the largest patch
        "seen_height": pa.int32(),  # of the image as the network saw it
        "seen_width": pa.int32(),
        "extent": pa.list_(pa.float32()),  # top, left, bottom, right of the grid, if it is not all
        "box_left": pa.int32(),  # weightiest piece above the mean, in pixels as the network saw it
        "box_top": pa.int32(),
        "box_right": pa.int32(),
        "box_bottom": pa.int32(),
        "box_share": pa.float32(),
        "mask_mass": pa.float32(),  # share of the map's mass on the given mask
        "mask_peak": pa.bool_(),  # whether the largest patch lies on it
        "error": pa.string(),
    }
)
BOX = ("left", "top", "right", "bottom", "share")


def measure(
    maps: Tensor, size: tuple[int, int], coverage: Tensor | None, extent: Extent | None = None
) -> dict[str, Any]:
    """The columns that follow from the maps.

    Args:
        maps: (batch, rows, columns).
        size: (height, width) of the images as the network saw them.
        coverage: the share of each patch under the image's mask, as the maps; NaN without a mask.
        extent: the pixels of the image that the grid covers; None is all of them.
    """
    batch, rows, columns = maps.shape
    flat = maps.double().flatten(1)
    peak = flat.argmax(dim=1)
    boxes = [found[0] if found else None for found in find_boxes(maps, size, extent=extent)]
    return {
        "map": list(flat.to(torch.float16).numpy()),
        "rows": [rows] * batch,
        "columns": [columns] * batch,
        "peak_row": (peak // columns).tolist(),
        "peak_column": (peak % columns).tolist(),
        "entropy": _numbers(relative_entropy(maps)),
        "largest_share": _numbers(flat.amax(dim=1) / flat.sum(dim=1)),
        "seen_height": [size[0]] * batch,
        "seen_width": [size[1]] * batch,
        "extent": [extent] * batch,
        **{f"box_{side}": [box and getattr(box, side) for box in boxes] for side in BOX},
        **_on_mask(maps, coverage),
    }


def _on_mask(maps: Tensor, coverage: Tensor | None) -> dict[str, Any]:
    if coverage is None:
        return {"mask_mass": [None] * len(maps), "mask_peak": [None] * len(maps)}
    mass = _numbers(mass_on_object(maps, coverage))
    peak = peak_on_object(maps, coverage).tolist()
    there = [number is not None for number in mass]
    return {
        "mask_mass": mass,
        "mask_peak": [on if known else None for on, known in zip(peak, there, strict=True)],
    }


def _numbers(values: Tensor) -> list[float | None]:
    """Nothing where a measure makes no sense, such as the entropy of a map of zeros."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def as_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns of one length by name; those that are missing are empty."""
    length = len(columns["image"])
    arrays = [
        pa.array(columns.get(name, [None] * length), type=kind)
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def map_of(row: Mapping[str, Any]) -> np.ndarray:
    """The map of a row of the table that has one, (rows, columns) float32."""
    values = np.asarray(row["map"], dtype=np.float32)
    return values.reshape(int(row["rows"]), int(row["columns"]))


def extent_of(row: Mapping[str, Any]) -> Extent | None:
    """The pixels, as the network saw them, that the map of a row covers; None is all of them."""
    if row.get("extent") is None:  # or a table of before there was such a column
        return None
    top, left, bottom, right = map(float, row["extent"])
    return top, left, bottom, right


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows, image after image; those of one image in the order of the tables."""
    joined = pa.concat_tables(tables)
    order = np.argsort(joined["image"].to_numpy(), kind="stable")
    return joined.take(pa.array(order))


def count(table: pa.Table) -> tuple[int, int]:
    """Rows, and those with an error."""
    return table.num_rows, table.num_rows - table["error"].null_count


def to_bytes(table: pa.Table) -> bytes:
    """A Parquet file."""
    stream = BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def count_file(file: Any) -> tuple[int, int]:
    """As `count`, from the end of a Parquet file alone.

    Raises:
        pa.ArrowInvalid: it is no whole Parquet file.
    """
    metadata = pq.ParquetFile(file).metadata
    place = SCHEMA.names.index("error")
    errors = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        leaf = group.column(group.num_columns - (len(SCHEMA.names) - place))
        errors += group.num_rows - leaf.statistics.null_count
    return metadata.num_rows, errors
