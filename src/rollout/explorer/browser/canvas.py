"""The explorer's picture in the browser: maps go out as numbers, and are coloured there.

A slider move sends a few kilobytes, and the browser paints them at once; a figure by matplotlib
takes six times as long from the key to the screen.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from rollout.explorer.browser.scripts import script, style
from rollout.explorer.figure import colour_table
from rollout.explorer.panel import Frame, Panel
from rollout.maths.placement import shares


def as_png(picture: np.ndarray) -> bytes:
    """(height, width, 3) in [0, 1]."""
    stream = io.BytesIO()
    Image.fromarray((255 * picture + 0.5).astype(np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass(frozen=True)
class Pointer:
    """What was done: "hover", "click" or "step" to a patch of a panel, or "leave", "escape"."""

    kind: str
    panel: int
    patch: tuple[int, int]


class MapCanvas(anywidget.AnyWidget):
    """Panels with maps; the pointer comes back.

    Attributes:
        picture: PNG of the image.
        other_picture: PNG of what lies under the panels of another view.
        maps: float32, the panels' maps one after the other, (rows, columns) each.
        frame: the rest of a `Frame`, and its number; the browser paints when it changes.
        traces: float32, (maps, patches, patches): what the first panels show while a patch is
            hovered; they belong to the frame of the number `traced`.
        opacity: its own trait, so that a slider can be linked to it in the browser.
        follow: whether hovering is reported, or clicks alone.
        pointer: the last thing that mouse or keys did.
    """

    _esm = script("floats", "frames", "paint", "canvas")
    _css = style("canvas")
    picture = traitlets.Bytes().tag(sync=True)
    other_picture = traitlets.Bytes().tag(sync=True)
    maps = traitlets.Bytes().tag(sync=True)
    colours = traitlets.Bytes(colour_table()).tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    traces = traitlets.Bytes().tag(sync=True)
    traced = traitlets.Int(0).tag(sync=True)
    opacity = traitlets.Float(0.8).tag(sync=True)
    follow = traitlets.Bool(True).tag(sync=True)
    largest = traitlets.Int(640).tag(sync=True)  # side of a panel, in pixels
    pointer = traitlets.Dict().tag(sync=True, echo_update=False)
    _size = (1, 1)  # of the image, (height, width)
    _other: np.ndarray | None = None  # the picture that `other_picture` is of

    def show(self, frame: Frame, *, hovered: bool = False) -> None:
        """Paint a frame; one message.

        Args:
            hovered: whether it is there only while a patch is hovered.
        """
        values = [panel.values.astype("<f4") for panel in frame.panels]
        rows, columns = values[0].shape
        with self.hold_sync():
            self._show_other(frame)
            self.maps = b"".join(one.tobytes() for one in values)
            self.opacity = frame.opacity
            self.frame = {
                "number": self.frame.get("number", 0) + 1,
                "rows": rows,
                "columns": columns,
                "across": frame.across,
                "patch": frame.patch,
                "extent": shares(frame.extent, self._size),
                "scale": frame.scale,
                "shared": frame.shared,
                "small": frame.small,
                "picks": frame.picks,
                "tracedUnit": frame.traced_unit,
                "caption": frame.caption,
                "hovered": hovered,
                "rowLabels": frame.row_labels,
                "columnLabels": frame.column_labels,
                "panels": [_described(panel) | self._under(panel) for panel in frame.panels],
            }

    def _show_other(self, frame: Frame) -> None:
        """Send the picture of another view; nothing where it is there, or there is none."""
        pictures = [panel.ground.picture for panel in frame.panels if panel.ground is not None]
        other = next((one for one in pictures if one is not None), None)
        if other is None:
            self._other, self.other_picture = None, b""
        elif self._other is not other:
            self._other, self.other_picture = other, as_png(other)

    def _under(self, panel: Panel) -> dict[str, Any]:
        """Where a panel of another view differs from the frame."""
        if panel.ground is None:
            return {}
        rows, columns = panel.values.shape
        picture = panel.ground.picture
        size = self._size if picture is None else (picture.shape[0], picture.shape[1])
        return {
            "rows": rows,
            "columns": columns,
            "extent": shares(panel.ground.extent, size),
            "patch": panel.ground.patch,
            "other": picture is not None,
        }

    def show_picture(self, picture: np.ndarray) -> None:
        """The image under the frames that follow, (height, width, 3) in [0, 1]."""
        self._size = picture.shape[0], picture.shape[1]
        self.picture = as_png(picture)

    def show_traces(self, traces: Sequence[np.ndarray]) -> None:
        """Let the browser follow the mouse in the frame that it has."""
        with self.hold_sync():
            self.traces = np.stack(traces).astype("<f4").tobytes()
            self.traced = self.frame["number"]

    def pointed(self) -> Pointer:
        """The pointer; it may lag behind a new image, and point at a patch that is no more."""
        pointer: dict[str, Any] = self.pointer
        row, column = (int(place) for place in pointer.get("patch", (0, 0)))
        return Pointer(
            str(pointer.get("kind", "leave")), int(pointer.get("panel", 0)), (row, column)
        )


def _described(panel: Panel) -> dict[str, Any]:
    return {
        "title": panel.title,
        "over": panel.over,
        "colours": int(panel.signed),
        "signed": panel.signed,
        "low": panel.low,
        "high": panel.high,
        "logarithmic": panel.bottom > 0,
        "unit": panel.unit,
        "name": panel.name,
        "note": panel.note,
    }
