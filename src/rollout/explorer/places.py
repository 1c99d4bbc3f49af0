"""Where the explorer's controls stand, and what is said among them."""

import html

import ipywidgets as widgets

from rollout.explorer.cures import Cure
from rollout.explorer.knobs import Knobs

WIDTH = "calc(165px + 165px * var(--rollout-text, 1))"  # of the column: 330 px
ROW = {"layout": {"width": "100%", "align_items": "center"}}


class Places(Knobs):
    """Rows and a column of the knobs."""

    def column(self) -> widgets.VBox:
        self._answer = widgets.HTML(layout={"max_width": "320px"})
        return widgets.VBox(
            [
                widgets.HBox([self.image, self.upload], **ROW),
                self.model,
                self.classes,
                self.method,
                _labelled("fusion", self.head_fusion),
                self.discard_ratio,
                widgets.HBox([self.blocks, self.play], **ROW),
                widgets.HBox([self.head, self.whole], **ROW),
                self.opacity,
                _named("colours", widgets.HBox([self.scale, self.shared_scale], **ROW)),
                widgets.HBox([self.legacy, self.follow], layout={"flex_flow": "row wrap"}),
                widgets.HBox([self.keep, self.undo, self.reset, self.save], **ROW),
                self._answer,
            ],
            layout={
                "width": WIDTH,
                "flex": f"0 0 {WIDTH}",
                "overflow": "hidden",
                "padding": "0 8px 0 0",
            },
        )

    def top_row(self, status: widgets.Widget) -> widgets.HBox:
        """The line of status, and what can be done about what it says."""
        return widgets.HBox([status, self.cure, self.stop, self.large], layout={"width": "100%"})

    def grid_row(self) -> widgets.HBox:
        """Above the blocks and heads."""
        return widgets.HBox([self.grid_order, _labelled("scale", self.grid_shared)])

    def offer(self, cure: Cure | None) -> None:
        """A button for what makes the picture easier to read; None for nothing."""
        self.cure.layout.display = "none" if cure is None else ""
        if cure is not None:
            self.cure.description, self.cure.tooltip = cure.words, cure.call

    def answer(self, sentence: str) -> None:
        """Said beside the buttons, which may stand far below the line of status; "" for nothing."""
        words = html.escape(sentence)
        self._answer.value = words and f'<div class="rollout-answer">{words}</div>'


def _labelled(label: str, buttons: widgets.ToggleButtons) -> widgets.HBox:
    """A row whose label stands where those of the sliders stand."""
    name = widgets.Label(label, layout={"width": "4.8em", "justify_content": "flex-end"})
    return _named(label, widgets.HBox([name, buttons]))


def _named(label: str, row: widgets.HBox) -> widgets.HBox:
    """A group that a screen reader calls by its label, see `browser/edge.js`."""
    row.add_class("rollout-group")
    row.add_class(f"rollout-group-{label}")
    return row
