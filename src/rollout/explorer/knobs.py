"""The explorer's controls, one widget for each knob, and where they stand."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import ipywidgets as widgets

from rollout.explorer.browser.class_list import ClassList
from rollout.explorer.browser.upload import UploadButton
from rollout.models.networks import OWN_MODELS
from rollout.settings import HEAD_FUSIONS, METHODS

MODELS = (
    *OWN_MODELS,
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_small_patch14_dinov2",
)


_THIRD = {"layout": {"flex": "1 1 0", "min_width": "0"}}

ALL_HEADS = -1  # a dropdown takes None for "nothing chosen"


# A dropdown with a long name in it must not push its neighbour out of the row.
_WIDE = {
    "layout": {"width": "100%", "min_width": "0"},
    "style": {"description_width": "62px"},
}


def short_names(images: Sequence[str]) -> list[tuple[str, str]]:
    """What the dropdown shows of each image, a file's name without its folder, and the image."""
    return [(Path(image).name, image) for image in images]


class Knobs:
    """The widgets; `Controls` sets and reads them."""

    def __init__(self, images: Sequence[str], model: str) -> None:
        self.image = widgets.Dropdown(options=short_names(images), description="image", **_WIDE)
        self.upload = UploadButton(layout={"flex": "0 0 118px"})
        self.model = widgets.Combobox(
            value=model,
            options=list(dict.fromkeys((model, *MODELS))),
            continuous_update=False,
            description="model",
            tooltip="one of ours, or any Vision Transformer of timm; Enter loads it",
            **_WIDE,
        )
        self.classes = ClassList()
        self.method = widgets.Dropdown(
            options=titles(METHODS), description="method", tooltip="how the map is made", **_WIDE
        )
        self.head_fusion = widgets.ToggleButtons(
            options=list(HEAD_FUSIONS),
            style={"button_width": "72px"},
            tooltips=["the average over the heads", "the strongest head", "what all heads share"],
        )
        self.discard_ratio = widgets.FloatSlider(
            min=0, max=0.99, step=0.01, description="discard", **_WIDE
        )
        self.blocks = widgets.IntRangeSlider(min=1, max=1, description="blocks", **_WIDE)
        self.play = widgets.Play(min=1, max=1, interval=700, show_repeat=False)
        self.head = widgets.Dropdown(description="head", **_WIDE)
        self.whole = widgets.Button(
            description="show all", tooltip="all blocks and heads", layout={"flex": "0 0 92px"}
        )
        self.opacity = widgets.FloatSlider(min=0, max=1, step=0.05, description="opacity", **_WIDE)
        self.scale = widgets.ToggleButtons(
            options=[("shared", True), ("own", False)],
            style={"button_width": "110px"},
            tooltips=["one scale for the maps beside each other", "each map to its own maximum"],
        )
        self.legacy = widgets.Checkbox(description="arithmetic of vit-explain", indent=False)
        self.follow = widgets.Checkbox(True, description="trace on hover", indent=False)
        self.reset = widgets.Button(
            description="Reset",
            tooltip="all but image and model as at first",
            **_THIRD,
        )
        self.undo = widgets.Button(
            description="Undo", tooltip="back to what was shown before (Ctrl+Z)", **_THIRD
        )
        self.save = widgets.Button(
            description="Save",
            tooltip="picture (PNG, PDF), map (NumPy, CSV), settings (JSON) and call (Python)",
            **_THIRD,
        )
        self.stop = widgets.Button(
            description="Stop",
            tooltip="give up what is being computed",
            layout={"display": "none", "flex": "0 0 80px"},
        )
        self.cure = widgets.Button(
            button_style="warning", layout={"display": "none", "flex": "0 0 auto", "width": "auto"}
        )
        self._answer = widgets.HTML(layout={"max_width": "320px"})
        for name in ("discard_ratio", "blocks", "opacity", "play"):
            getattr(self, name).add_class("rollout-" + name.split("_")[0])

    def column(self) -> widgets.VBox:
        row = {"layout": {"width": "100%", "align_items": "center"}}
        return widgets.VBox(
            [
                widgets.HBox([self.image, self.upload], **row),
                self.model,
                self.classes,
                self.method,
                _labelled("fusion", self.head_fusion),
                self.discard_ratio,
                widgets.HBox([self.blocks, self.play], **row),
                widgets.HBox([self.head, self.whole], **row),
                self.opacity,
                _labelled("scale", self.scale),
                widgets.HBox([self.legacy, self.follow], **row),
                widgets.HBox([self.undo, self.reset, self.save], **row),
                self._answer,
            ],
            layout={
                "width": "330px",
                "flex": "0 0 330px",
                "overflow": "hidden",
                "padding": "0 8px 0 0",
            },
        )

    def offer(self, start_block: int | None) -> None:
        """A button for what takes a patch away that dominates; None for nothing."""
        self.cure.layout.display = "none" if start_block is None else ""
        if start_block is not None:
            several = "block 1" if start_block == 1 else f"blocks 1 to {start_block}"
            self.cure.description = f"Leave {several} out"
            self.cure.tooltip = f"start_block={start_block}"

    def answer(self, sentence: str) -> None:
        """Said beside the buttons, which may stand far below the line of status; "" for nothing."""
        words = html.escape(sentence)
        self._answer.value = words and f'<div class="rollout-answer">{words}</div>'


def titles(methods: Iterable[str]) -> list[tuple[str, str]]:
    """What the dropdown shows of methods."""
    return [(METHODS[name].title, name) for name in methods]


def _labelled(label: str, buttons: widgets.ToggleButtons) -> widgets.HBox:
    """A row whose label stands where those of the sliders stand."""
    name = widgets.Label(label, layout={"width": "62px", "justify_content": "flex-end"})
    row = widgets.HBox([name, buttons])
    row.add_class("rollout-group")
    return row
