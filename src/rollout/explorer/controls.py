"""The explorer's controls: set from a view, read back into one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import ipywidgets as widgets

from rollout.explorer.knobs import ALL_HEADS, KEEP, LARGE, LET_GO, titles
from rollout.explorer.places import Places
from rollout.explorer.session import Session
from rollout.explorer.view import View, indices
from rollout.names import one_line
from rollout.settings import METHODS


class Controls(Places):
    """One widget for each knob, and which of them decide a view."""

    def __init__(self, images: Sequence[str], model: str) -> None:
        super().__init__(images, model)
        self._quiet = False

    @property
    def knobs(self) -> list[widgets.Widget]:
        """What only recomputes."""
        return [
            *(self.method, self.head_fusion, self.discard_ratio, self.blocks, self.head),
            *(self.opacity, self.scale, self.shared_scale, self.legacy),
            *(self.grid_order, self.grid_shared, self.large),
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

    def fit(self, session: Session) -> None:
        """Ranges and classes of another model or image."""
        blocks = session.num_blocks
        with self.setting():
            self.method.options = titles(session.methods)
            self.blocks.max = self.play.max = blocks
            heads = [(f"head {head + 1}", head) for head in range(session.num_heads)]
            self.head.options = [("all", ALL_HEADS), *heads]
            classes = range(0 if session.recording.score else session.model.num_classes)
            labels = tuple(one_line(session.label(index)) for index in classes)
            number = len(labels)
            if session.recording.score:
                self.classes.empty = "a score is followed instead of a class"
            self.classes.show(labels, session.probabilities[:number], session.logits[:number])

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
            self.scale.value, self.shared_scale.value = view.scale, view.shared_scale
            self.grid_order.value, self.grid_shared.value = view.grid_order, view.grid_shared
            self.large.value = view.text > 1
            self.keep.description = "Keep" if view.compare_with is None else "Let go"
            self.keep.tooltip = KEEP if view.compare_with is None else LET_GO
            self.classes.mark(indices(view.target), indices(view.rival))
            self.answer("")

    def read(self, view: View) -> View:
        """The view with the knobs as they stand."""
        first, last = self.blocks.value
        # Without a knob of its own; kept as long as it can go with the others.
        keeps = METHODS[self.method.value].gradients and not self.legacy.value
        settings = replace(
            view.settings,
            head_fusion=self.head_fusion.value,
            discard_ratio=round(self.discard_ratio.value, 4),
            start_block=first - 1,
            end_block=None if last == self.blocks.max else last,
            head=None if self.head.value == ALL_HEADS else self.head.value,
            legacy=self.legacy.value,
            backward=view.settings.backward if keeps else "plain",
        )
        return replace(
            view,
            method=self.method.value,
            settings=settings,
            opacity=round(self.opacity.value, 4),
            scale=self.scale.value,
            shared_scale=self.shared_scale.value,
            grid_order=self.grid_order.value,
            grid_shared=self.grid_shared.value,
            text=_text(view.text, large=self.large.value),
        )


def _text(now: float, *, large: bool) -> float:
    """A size of one's own stays while the button does."""
    if large == (now > 1):
        return now
    return LARGE if large else 1.0


def _set(slider: widgets.FloatSlider, value: float) -> None:
    """Not for a rounding error: it would pull a slider back that is being dragged."""
    if abs(slider.value - value) > 1e-4:
        slider.value = value
