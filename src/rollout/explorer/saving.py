"""What Save writes: the picture, its numbers, and the settings and the call that make it again."""

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rollout.explorer.panel import Frame
from rollout.explorer.view import View, as_keywords
from rollout.files import whole_file
from rollout.names import file_name, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".pdf")
NUMBERS = (".npy", ".csv")
KINDS = (*PICTURES, ".json", *NUMBERS, ".py")


def save_view(
    figure: "Figure", frame: Frame, view: View, label: str, code: str, folder: Path
) -> list[Path]:
    """Write a view; only the same view saved again is overwritten.

    Args:
        frame: what the figure shows.
        label: the target's, for the name.
        code: the call that makes the map.

    Returns:
        The files: PNG, PDF; settings as JSON; maps as NumPy's (rows, columns), or (maps, rows,
        columns) where there are several, and as a table with a row per patch; the call.
    """
    content = json.dumps(as_keywords(view), indent=2) + "\n"
    stem = next(name for name in _names(view, label) if _is_free(folder / name, content))
    files = {kind: folder / (stem + kind) for kind in KINDS}
    for kind in PICTURES:
        with whole_file(files[kind]) as partial:
            figure.savefig(partial, dpi=200)
    values, table = numbers(frame)
    with whole_file(files[".npy"]) as partial, partial.open("wb") as stream:
        np.save(stream, values)
    with whole_file(files[".csv"]) as partial:
        table.to_csv(partial, index=False)
    for kind, text in ((".json", content), (".py", code + "\n")):
        with whole_file(files[kind]) as partial:
            partial.write_text(text, encoding="utf-8")
    return list(files.values())


def numbers(frame: Frame) -> tuple[np.ndarray, pd.DataFrame]:
    """A frame's maps, each once: one array, and the columns map, row, column, value.

    Where the grids of two views differ, the array is the first's, and the table has both.
    """
    panels = [panel for panel in frame.panels if panel.over]
    tables = []
    for panel in panels:
        rows, columns = np.indices(panel.values.shape).reshape(2, -1)
        title = one_line(panel.title, 1000)
        table = {"map": title, "row": rows, "column": columns, "value": panel.values.ravel()}
        tables.append(pd.DataFrame(table))
    values = [panel.values for panel in panels]
    alike = len(values) > 1 and len({one.shape for one in values}) == 1
    return np.stack(values) if alike else values[0], pd.concat(tables, ignore_index=True)


def _names(view: View, label: str) -> Iterator[str]:
    parts = [Path(view.image).stem, view.method, label]
    stem = "_".join(
        re.sub(r"\W+", "_", file_name(part, most=100)).strip("_") for part in parts if part
    )
    return (stem if number == 1 else f"{stem}_{number}" for number in count(1))


def _is_free(stem: Path, content: str) -> bool:
    """Whether nothing has this name, or the same settings."""
    settings = stem.with_name(stem.name + ".json")
    if settings.is_file():
        return settings.read_text() == content
    return not any(stem.with_name(stem.name + kind).exists() for kind in KINDS)
