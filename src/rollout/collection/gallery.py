"""A collection as one page of HTML: thumbnails with their maps, sortable, without any server."""

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from rollout.collection.folder import Folder
from rollout.collection.opening import REFUSED, read_bytes
from rollout.collection.shards import read_table
from rollout.collection.table import extent_of, map_of
from rollout.errors import shown
from rollout.files import whole_file
from rollout.maths.placement import stretch
from rollout.models.census import sketch
from rollout.models.images import decode_image
from rollout.models.load import load_demo
from rollout.models.model import Model
from rollout.models.preprocess import Transform, apply_transform, default_transform, normalisation
from rollout.plots.figure import jet_overlay
from rollout.settings import check_count, check_flag

THUMBNAIL = 112  # pixels high
SHOWN: tuple[str, ...] = (
    "path",
    "method",
    "label",
    "probability",
    "predicted_label",
    "entropy",
    "largest_share",
)
SHOWN += ("box_share", "mask_mass", "head_fusion", "discard_ratio", "error")
# Pictures are inside the page; should a path hold anything else, a browser does not fetch it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_HERE = Path(__file__).parent


def write_gallery(
    folder: str | Path,
    path: str | Path,
    *,
    sort: str = "entropy",
    descending: bool = False,
    most: int = 300,
    model: Model | None = None,
) -> tuple[int, int]:
    """Write the page; it can be mailed, and asks for nothing from outside.

    Args:
        folder: of a collection.
        sort: the column that decides which rows are shown, and in which order.
        most: rows; each takes about 8 kB.
        model: that of the collection, where it was none of the demo or timm: its transform shows
            what the network saw.

    Returns:
        The numbers of rows on the page and in the table.

    Raises:
        ValueError: there is no such column.
        FileNotFoundError: there is no collection.
    """
    most = check_count("most", most)
    check_flag("descending", descending)
    settings = Folder.at(folder).settings()
    if settings is None:
        raise FileNotFoundError(f"no collection in {folder}; write one with rollout collect")
    table = read_table(folder)
    if not isinstance(sort, str) or sort not in table or sort == "map":
        columns = ", ".join(name for name in table if name != "map")
        raise ValueError(f"the table has no column {shown(sort)} to sort by; it has {columns}")
    order = table.sort_values(sort, ascending=not descending, kind="stable", na_position="last")
    transform = _transform(settings["model"]["name"]) if model is None else model.transform
    rows = [_row(row, transform) for row in order.head(most).to_dict("records")]
    with whole_file(path) as partial:
        partial.write_text(_page(rows, settings, len(table)), encoding="utf-8")
    return len(rows), len(table)


def _transform(name: str) -> Transform | None:
    """That of the model, found without its weights; None for a model of the user's own."""
    try:
        return default_transform(load_demo()[0] if name == "demo" else sketch(name))
    except ValueError:
        return None


def _page(rows: list[str], settings: Mapping[str, Any], total: int) -> str:
    heads = "".join(f'<th scope="col"><button>{escape(name)}</button></th>' for name in SHOWN)
    said = f"{settings['model']['name']}: {', '.join(settings['methods'])}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(said)}</title>
<style>
{(_HERE / "gallery.css").read_text()}</style>
</head>
<body>
<h1>{escape(said)}</h1>
<p>{len(rows)} of {total} rows. Hover a picture to see it without its map; click a column's name to
sort.</p>
<table>
<thead><tr><th scope="col">map</th>{heads}</tr></thead>
<tbody>
{"".join(rows)}</tbody>
</table>
<script>
{(_HERE / "gallery.js").read_text()}</script>
</body>
</html>
"""


def _row(row: Mapping[str, Any], transform: Transform | None) -> str:
    cells = "".join(_cell(name, row[name]) for name in SHOWN)
    return f"<tr><td>{_pictures(row, transform)}</td>{cells}</tr>\n"


def _cell(name: str, value: Any) -> str:
    if value is None or pd.isna(value):
        return "<td></td>"
    if isinstance(value, float):
        return f'<td class="number" data-value="{value!r}">{value:.3g}</td>'
    kind = ' class="path"' if name == "path" else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _pictures(row: Mapping[str, Any], transform: Transform | None) -> str:
    """The image and, over it, the image with its map; nothing where there is no map."""
    if row["map"] is None:
        return ""
    size = int(row["seen_height"]), int(row["seen_width"])
    small = (THUMBNAIL, max(1, round(THUMBNAIL * size[1] / size[0])))
    saliency_map = stretch(torch.from_numpy(map_of(row))[None], small, extent_of(row), size)[0]
    picture = _resized(_seen(row["path"], size, transform), small)[0].permute(1, 2, 0).numpy()
    overlay = jet_overlay(picture, saliency_map.numpy())
    name = escape(Path(row["path"]).name, quote=True)
    images = (_image((255 * picture + 0.5).astype(np.uint8), name), _image(overlay, ""))
    return f'<span class="pair" tabindex="0">{"".join(images)}</span>'


def _seen(path: str, size: tuple[int, int], transform: Transform | None) -> Tensor:
    """The image as the network saw it, (1, 3, height, width) in [0, 1]; grey if it is gone."""
    try:
        image = decode_image(read_bytes(path), path)
    except REFUSED:
        return torch.full((1, 3, *size), 0.5)
    if transform is None:  # unknown: the whole image
        pixels = np.asarray(image.resize((size[1], size[0])))
        return torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in normalisation(transform))
    return (apply_transform(transform, image) * std + mean).clamp(0, 1).expand(3, -1, -1)[None]


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(images, size, mode="bilinear", antialias=True)


def _image(pixels: np.ndarray, text: str) -> str:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=80)
    content = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{text}" src="data:image/jpeg;base64,{content}">'
