"""Figures that follow each other: a slider through them, and an animation.

The slider is a still picture wherever no widget can be shown.
"""

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rollout.files import whole_file
from rollout.plots.figure import figure_png


class PictureSlider(ipywidgets.VBox):
    """One picture at a time, chosen by a slider.

    Pictures are drawn when it is made; moving the slider only exchanges them. A notebook that is
    read on a web page, exported or printed shows `still` in its place.

    Args:
        pictures: what stands beside the slider -> what is shown; the first one is shown first.
        name: of what the slider moves.
        still: the picture for readers without a kernel, such as all of them side by side.
    """

    def __init__(self, pictures: Mapping[str, Figure], *, name: str, still: Figure) -> None:
        self.pictures = {label: figure_png(figure) for label, figure in pictures.items()}
        self.still = figure_png(still)
        self.slider = ipywidgets.SelectionSlider(
            options=list(self.pictures),
            description=name,
            layout=ipywidgets.Layout(width="420px"),
            style={"description_width": "initial"},
        )
        self.image = ipywidgets.Image(value=self.pictures[self.slider.value], format="png")
        self.slider.observe(self._show, names="value")
        # Pictures keep their size; a column otherwise stretches what stands in it.
        super().__init__([self.slider, self.image], layout={"align_items": "flex-start"})

    def _show(self, change: Mapping[str, str]) -> None:
        self.image.value = self.pictures[change["new"]]

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        still = base64.b64encode(self.still).decode("ascii")
        return {**super()._repr_mimebundle_(**options), "image/png": still}


def write_animation(frames: Iterable[Figure], path: str | Path, *, seconds: float = 0.2) -> Path:
    """Figures of equal size as a GIF that repeats; the last one stays three times as long."""
    images = [Image.fromarray(_pixels(frame)).quantize(256) for frame in frames]
    if not images:
        raise ValueError("frames is empty; give at least one figure")
    durations = [int(1000 * seconds)] * (len(images) - 1) + [int(3000 * seconds)]
    with whole_file(path) as partial:
        images[0].save(partial, save_all=True, append_images=images[1:], duration=durations, loop=0)
    return Path(path)


def _pixels(figure: Figure) -> np.ndarray:
    """(height, width, 3) of uint8, as large as the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
