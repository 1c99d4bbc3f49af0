"""The explorer's controls: one widget for each knob, each with what it does in a sentence."""

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


SHARE = {"layout": {"flex": "1 1 0", "min_width": "0"}}  # of a row
ALL_HEADS = -1  # a dropdown takes None for "nothing chosen"


# A dropdown with a long name in it must not push its neighbour out of the row.
_WIDE = {
    "layout": {"width": "100%", "min_width": "0"},
    "style": {"description_width": "4.8em"},
}


def short_names(images: Sequence[str]) -> list[tuple[str, str]]:
    """What the dropdown shows of each image, a file's name without its folder, and the image."""
    return [(Path(image).name, image) for image in images]


LARGE = 1.3  # times the notebook's letters
KEEP = "keep this map beside what comes next, and compare: other settings, method, model or image"
LET_GO = "compare no more"
SCALES = [
    ("automatic", "auto"),
    ("maximum", "max"),
    ("99th percentile", "percentile"),
    ("logarithm", "log"),
]
ORDERS = [
    ("block by block", "blocks"),
    ("lowest entropy first", "entropy"),
    ("largest patch first", "largest"),
]


class Knobs:
    """The widgets; `Controls` sets and reads them."""

    def __init__(self, images: Sequence[str], model: str) -> None:
        self._sources(images, model)
        self._arithmetic()
        self._colours()
        self._buttons()
        for name in ("discard_ratio", "blocks", "opacity", "play"):
            getattr(self, name).add_class("rollout-" + name.split("_")[0])

    def _sources(self, images: Sequence[str], model: str) -> None:
        self.image = widgets.Dropdown(
            options=short_names(images),
            description="image",
            tooltip="the image that the network sees",
            **_WIDE,
        )
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

    def _arithmetic(self) -> None:
        self.method = widgets.Dropdown(
            options=titles(METHODS),
            description="method",
            tooltip="how attention, and gradients, become one number for each patch",
            **_WIDE,
        )
        self.head_fusion = widgets.ToggleButtons(
            options=list(HEAD_FUSIONS),
            style={"button_width": "72px"},
            tooltips=["the average over the heads", "the strongest head", "what all heads share"],
        )
        self.discard_ratio = widgets.FloatSlider(
            min=0,
            max=0.99,
            step=0.01,
            description="discard",
            tooltip="the share of each block's lowest attention that is thrown away",
            **_WIDE,
        )
        self.blocks = widgets.IntRangeSlider(
            min=1,
            max=1,
            description="blocks",
            tooltip="the first and the last block that count",
            **_WIDE,
        )
        self.play = widgets.Play(min=1, max=1, interval=700, show_repeat=False)
        self.head = widgets.Dropdown(
            description="head", tooltip="all heads of a block together, or one alone", **_WIDE
        )
        self.whole = widgets.Button(
            description="show all", tooltip="all blocks and heads", layout={"flex": "0 0 92px"}
        )
        self.legacy = widgets.Checkbox(
            description="arithmetic of vit-explain",
            tooltip="what the published code computes, faults included",
            indent=False,
            layout={"width": "auto"},
        )

    def _colours(self) -> None:
        self.opacity = widgets.FloatSlider(
            min=0,
            max=1,
            step=0.05,
            description="opacity",
            tooltip="how much the map hides of the image",
            **_WIDE,
        )
        self.scale = widgets.Dropdown(
            options=SCALES,
            description="scale",
            tooltip="where the colours end: automatic is the maximum, without a patch that "
            "outshines all others; at a logarithm each colour stands for a factor",
            layout={"flex": "1 1 0", "min_width": "0"},
            style=_WIDE["style"],
        )
        words = ["one scale for the maps beside each other", "each map to its own maximum"]
        self.shared_scale = _two("shared", "own", words)
        self.grid_order = widgets.Dropdown(
            options=ORDERS,
            description="order",
            tooltip="where blocks and heads stand; low entropy is a focused map",
            layout={"width": "240px"},
            style={"description_width": "3.7em"},
        )
        words = ["one scale for all blocks and heads", "each block and head to its own maximum"]
        self.grid_shared = _two("shared", "own", words)
        self.follow = widgets.Checkbox(
            True,
            description="trace on hover",
            tooltip="show where the patch under the mouse gets its content from",
            indent=False,
            layout={"width": "auto"},
        )
        self.large = widgets.ToggleButton(
            description="Larger text",
            tooltip="for the back of the room",
            layout={"flex": "0 0 auto", "width": "auto"},
        )

    def _buttons(self) -> None:
        self.keep = widgets.Button(description="Keep", tooltip=KEEP, **SHARE)
        self.reset = widgets.Button(
            description="Reset", tooltip="all but image and model as at first", **SHARE
        )
        self.undo = widgets.Button(
            description="Undo", tooltip="back to what was shown before (Ctrl+Z)", **SHARE
        )
        self.save = widgets.Button(
            description="Save",
            tooltip="picture (PNG, PDF), map (NumPy, CSV), settings (JSON) and call (Python)",
            **SHARE,
        )
        self.stop = widgets.Button(
            description="Stop",
            tooltip="give up what is being computed",
            layout={"display": "none", "flex": "0 0 80px"},
        )
        self.cure = widgets.Button(
            button_style="warning", layout={"display": "none", "flex": "0 0 auto", "width": "auto"}
        )


def titles(methods: Iterable[str]) -> list[tuple[str, str]]:
    """What the dropdown shows of methods."""
    return [(METHODS[name].title, name) for name in methods]


def _two(yes: str, no: str, tooltips: list[str]) -> widgets.ToggleButtons:
    """A choice between two, side by side."""
    return widgets.ToggleButtons(
        options=[(yes, True), (no, False)], style={"button_width": "4.8em"}, tooltips=tooltips
    )
