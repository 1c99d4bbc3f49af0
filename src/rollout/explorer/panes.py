"""The explorer's right side: the tabs with map, grid and code, and what stands beside them."""

import ipywidgets as widgets

from rollout.explorer.browser.canvas import MapCanvas
from rollout.explorer.browser.copy_text import CopyText

MAP, GRID, METHODS_SHOWN, CODE = range(4)


class Panes:
    """The widgets that show something.

    Attributes:
        canvas, grid_canvas, methods_canvas: the map, every block and head alone, several methods.
        curve, shares: what the discard ratio does, and on which objects the map lies.
        colours: the image as it is.
        code: the call that makes the map.
        tabs: all of these.

    Args:
        grid_row: the controls of blocks and heads.
    """

    def __init__(self, grid_row: widgets.Widget) -> None:
        self.canvas, self.grid_canvas = MapCanvas(), MapCanvas(follow=False, largest=400)
        self.methods_canvas = MapCanvas(follow=False)
        self.canvases = [self.canvas, self.grid_canvas, self.methods_canvas]
        self.shares, self.curve, self.code = widgets.HTML(), widgets.HTML(), CopyText()
        self.colours = widgets.Image(layout={"height": "100px", "margin": "4px 8px 0 0"})
        below = widgets.HBox([self.colours, self.curve, self.shares], layout={"flex_flow": "wrap"})
        below.add_class("rollout-beside")
        self.tabs = widgets.Tab(
            [
                widgets.VBox([self.canvas, below]),
                widgets.VBox([grid_row, self.grid_canvas]),
                self.methods_canvas,
                self.code,
            ],
            titles=["map", "blocks and heads", "methods", "code"],
            layout={"flex": "1 1 400px", "min_width": "0"},
        )

    @property
    def open(self) -> int:
        """Which tab is open: MAP, GRID, METHODS_SHOWN or CODE."""
        return MAP if self.tabs.selected_index is None else self.tabs.selected_index
