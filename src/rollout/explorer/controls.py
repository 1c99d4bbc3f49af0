"""The explorer's controls: made here, set from a view, read back into one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets

from rollout.explorer.browser.class_list import ClassList
from rollout.explorer.browser.upload import UploadButton
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.models.networks import OWN_MODELS
from rollout.names import one_line
from rollout.settings import HEAD_FUSIONS, METHODS, Settings

MODELS = (
    *OWN_MODELS,
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_small_patch14_dinov2",
)


ALL_HEADS = -1  # a dropdown takes None for "nothing chosen"


# A dropdown with a long name in it must not push its neighbour out of the row.
_WIDE = {
    "layout": {"width": "100%", "min_width": "0"},
    "style": {"description_width": "62px"},
}


def short_names(images: Sequence[str]) -> list[tuple[str, str]]:
    """What the dropdown shows of each image, a file's name without its folder, and the image."""
    return [(Path(image).name, image) for image in images]


class Controls:
    """One widget for each knob, and which of them decide a view."""

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
        titles = [(method.title, name) for name, method in METHODS.items()]
        self.method = widgets.Dropdown(options=titles, description="method", **_WIDE)
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
        self.reset = widgets.Button(description="Reset", tooltip="all knobs as in the papers")
        self.save = widgets.Button(
            description="Save", tooltip="the picture as PNG and PDF, the settings as JSON"
        )
        self._quiet = False

    @property
    def knobs(self) -> list[widgets.Widget]:
        """What only recomputes."""
        return [
            *(self.method, self.head_fusion, self.discard_ratio, self.blocks, self.head),
            *(self.opacity, self.scale, self.legacy),
        ]

    @property
    def quiet(self) -> bool:
        """Whether it is Python that sets the controls, and nobody chose anything."""
        return self._quiet

    @contextmanager
    def setting(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

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
                widgets.HBox([self.reset, self.save], **row),
            ],
            layout={"width": "330px", "flex": "0 0 330px", "padding": "0 10px 0 0"},
        )

    def fit(self, session: Session) -> None:
        """Ranges and classes of another model or image."""
        blocks = session.num_blocks
        with self.setting():
            self.blocks.max = self.play.max = blocks
            heads = [(f"head {head + 1}", head) for head in range(session.num_heads)]
            self.head.options = [("all", ALL_HEADS), *heads]
            labels = tuple(
                one_line(session.label(index)) for index in range(session.model.num_classes)
            )
            self.classes.show(labels, session.probabilities, session.logits)

    def write(self, view: View) -> None:
        """Show a view's settings."""
        settings, end = view.settings, view.settings.end_block or self.blocks.max
        with self.setting():
            self.image.value, self.model.value, self.method.value = (
                view.image,
                view.model,
                view.method,
            )
            self.head_fusion.value = settings.head_fusion
            _set(self.discard_ratio, settings.discard_ratio)
            self.blocks.value = settings.start_block + 1, end
            self.play.value = end
            self.head.value = ALL_HEADS if settings.head is None else settings.head
            self.legacy.value = settings.legacy
            _set(self.opacity, view.opacity)
            self.scale.value = view.shared_scale
            self.classes.mark(view.target, view.rival)

    def read(self, view: View) -> View:
        """The view with the knobs as they stand."""
        first, last = self.blocks.value
        # Without a knob of its own; kept as long as it can go with the others.
        keeps = METHODS[self.method.value].gradients and not self.legacy.value
        settings = Settings(
            head_fusion=self.head_fusion.value,
            discard_ratio=round(self.discard_ratio.value, 4),
            start_block=first - 1,
            end_block=None if last == self.blocks.max else last,
            head=None if self.head.value == ALL_HEADS else self.head.value,
            query=view.settings.query,
            legacy=self.legacy.value,
            backward=view.settings.backward if keeps else "plain",
        )
        return replace(
            view,
            method=self.method.value,
            settings=settings,
            opacity=round(self.opacity.value, 4),
            shared_scale=self.scale.value,
        )


def _labelled(label: str, buttons: widgets.ToggleButtons) -> widgets.HBox:
    """A row whose label stands where those of the sliders stand."""
    name = widgets.Label(label, layout={"width": "62px", "justify_content": "flex-end"})
    return widgets.HBox([name, buttons])


def _set(slider: widgets.FloatSlider, value: float) -> None:
    """Not for a rounding error: it would pull a slider back that is being dragged."""
    if abs(slider.value - value) > 1e-4:
        slider.value = value
