"""Boxes and masks of a collection as JSON in the form of the COCO data set (Lin et al., 2014)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import find_objects, label

from rollout.collection.shards import read_table
from rollout.collection.table import extent_of, map_of
from rollout.files import whole_file
from rollout.maths.boxes import Box, draw_mask, find_boxes, outstanding

_READ = ["path", "method", "head_fusion", "discard_ratio", "target", "label", "probability", "map"]
_READ += ["rows", "columns", "seen_height", "seen_width", "extent", "error"]


def write_coco(folder: str | Path, path: str | Path, *, threshold: float = 0.0) -> tuple[int, int]:
    """Write the boxes and masks of all maps; pixels are those of the image as the network saw it.

    Args:
        folder: of a collection.
        threshold: standard deviations above the mean at which a patch stands out.

    Returns:
        The numbers of images and of boxes.
    """
    table = read_table(folder, ["image", *_READ])
    table = table[table["error"].isna()].drop(columns="error")
    images: dict[int, dict[str, Any]] = {}
    categories: dict[int, str] = {}
    annotations: list[dict[str, Any]] = []
    for row in table.to_dict("records"):
        number, size = int(row["image"]), (int(row["seen_height"]), int(row["seen_width"]))
        images[number] = {"id": number, "file_name": row["path"]} | _size(size)
        category = -1 if np.isnan(row["target"]) else int(row["target"])
        categories[category] = row["label"] or ""
        for annotation in _annotations(row, size, threshold):
            own = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append(own | annotation)
    content = {
        "info": {"description": f"patches above mean + {threshold:g} standard deviations"},
        "images": list(images.values()),
        "categories": [{"id": key, "name": name} for key, name in sorted(categories.items())],
        "annotations": annotations,
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content) + "\n")
    return len(images), len(annotations)


def _size(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _annotations(
    row: Mapping[str, Any], size: tuple[int, int], threshold: float
) -> list[dict[str, Any]]:
    """One for each connected piece of the mask."""
    saliency_map = torch.from_numpy(map_of(row))[None]
    extent = extent_of(row)
    pieces, _ = label(draw_mask(outstanding(saliency_map, threshold), size, extent)[0].numpy())
    places = find_objects(pieces)
    said = {name: row[name] for name in ("method", "head_fusion")}
    said["discard_ratio"] = round(float(row["discard_ratio"]), 6)
    found = []
    for box in find_boxes(saliency_map, size, threshold, extent)[0]:
        place = slice(box.top, box.bottom), slice(box.left, box.right)  # no two pieces share one
        found.append(_annotation(box, pieces == 1 + places.index(place)) | said)
    return found


def _annotation(box: Box, piece: np.ndarray) -> dict[str, Any]:
    return {
        "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
        "area": int(piece.sum()),
        "segmentation": {"size": list(piece.shape), "counts": run_lengths(piece)},
        "iscrowd": 1,  # COCO's word for a mask in run lengths
        "score": round(box.share, 6),
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of runs of 0, 1, 0, ... down the columns, one after the other; 0s come first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *edges.tolist(), mask.size]).tolist()
