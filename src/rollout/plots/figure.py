"""What all pictures share: figures, the one colour bar, bytes of a PNG."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from PIL import Image

from rollout.files import whole_file, with_suffix
from rollout.maths.checks import check_array

COLOUR_MAP = "inferno"


def colour_bar(
    axes: Axes | np.ndarray,
    high: float,
    label: str,
    *,
    low: float = 0.0,
    colours: str = COLOUR_MAP,
    small: bool = False,
    ticks: Sequence[float] | None = None,
    ends: tuple[str, str] | None = None,
    above: bool = False,
    logarithmic: bool = False,
    **place: Any,
) -> None:
    """A bar of a map's colours with its unit, beside one panel or several.

    Args:
        label: what the values mean, with their unit.
        small: for grids of small panels.
        ticks: where numbers stand; by default matplotlib chooses.
        ends: words instead of numbers, at the two ends of the bar.
        above: whether a panel has values above `high`: the bar then ends in an arrow.
        logarithmic: whether each colour stands for a factor; said behind the unit.
        place: for `Figure.colorbar`, such as location, aspect or pad.
    """
    figure = np.ravel(np.asarray(axes))[0].figure
    place |= {"format": "{x:.2g}"} if small else {}
    place |= {"extend": "max", "extendfrac": 0.06} if above else {}
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, **place)
    if logarithmic:
        label = f"{label},\nlogarithmic"
        bar.minorticks_off()
    bar.set_label(label, **({"fontsize": "small"} if small else {}))
    if small:
        bar.ax.tick_params(labelsize="small")
    if ends is not None:
        bar.set_ticks((low, high), labels=ends)
        bar.ax.yaxis.set_label_coords(2.5, 0.42)  # beside the bar, not beside the words at its end
    elif ticks is not None:
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    elif not small and not logarithmic:
        bar.ax.ticklabel_format(axis="y", scilimits=(-2, 3))


def own_scales_bar(
    axes: np.ndarray, unit: str, *, above: bool, logarithmic: bool = False, **place: Any
) -> None:
    """One bar for panels of which each has a scale of its own, with the unit said once.

    Args:
        above: whether a panel's scale ends below its brightest patch.
        logarithmic: whether each colour stands for a factor.
    """
    low, label = ("the panel's\nlowest", f"{unit},\nlogarithmic") if logarithmic else ("0", unit)
    top = "end of the\npanel's scale" if above else "the panel's\nbrightest"
    colour_bar(axes, 1.0, label, ends=(low, top), above=above, **place)


def new_figure(
    rows: int, columns: int, *, width: float, height: float
) -> tuple[Figure, np.ndarray]:
    """A figure that a notebook shows where it is the last value of a cell, and only there."""
    with matplotlib.rc_context({"text.parse_math": False}):  # a label may hold dollar signs
        figure, axes = plt.subplots(
            rows, columns, squeeze=False, figsize=(width, height), layout="constrained", dpi=90
        )
    plt.close(figure)
    return figure, axes


def save_picture(picture: np.ndarray, path: str | Path) -> Path:
    """Write (height, width, 3), in [0, 1] or of uint8, as an image file without axes.

    Returns:
        The path, with .png where the name has no ending.
    """
    check_picture(picture)
    path = with_suffix(path)
    if picture.dtype != np.uint8:
        picture = (255 * np.nan_to_num(picture).clip(0, 1) + 0.5).astype(np.uint8)
    with whole_file(path) as partial:
        Image.fromarray(picture).save(partial)
    return path


def check_picture(picture: Any) -> None:
    """Refuse what is no RGB picture, (height, width, 3)."""
    check_array("picture", picture, "height, width, 3")
    if picture.shape[2] != 3:
        raise ValueError(f"picture must be (height, width, 3), got {picture.shape}")


def jet_overlay(picture: np.ndarray, saliency_map: np.ndarray) -> np.ndarray:
    """The published look of vit-explain: jet added to the image, the brightest value scaled to 1.

    Args:
        picture: (height, width, 3) in [0, 1].
        saliency_map: (height, width), non-negative.

    Returns:
        (height, width, 3) of uint8.
    """
    scaled = saliency_map / (saliency_map.max() or 1.0)
    added = matplotlib.colormaps["jet"](scaled)[..., :3] + picture
    return (255 * added / added.max()).astype(np.uint8)


def figure_png(figure: Figure) -> bytes:
    """The bytes of a PNG file, the same for the same figure: without the date and versions."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
