"""The explorer: every knob of a map beside the map, for JupyterLab and any notebook front end.

Only a new image, model or target runs the network; all else recomputes from what was recorded. A
mistake is answered by a sentence above the picture, and everything else stays as it was.
"""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from rollout.explanations.kept_maps import Kept
from rollout.explanations.methods import CHAINED
from rollout.explorer import open_widgets
from rollout.explorer.browser.canvas import MapCanvas
from rollout.explorer.browser.copy_text import CopyText
from rollout.explorer.controls import Controls, short_names
from rollout.explorer.curve import as_svg, sweep_curve
from rollout.explorer.figure import frame_png, plot_frame, save_view
from rollout.explorer.frame import Frame, Patch, grid_frame, main_frame, traces
from rollout.explorer.messages import StatusLine, described, shares_table
from rollout.explorer.session import Session
from rollout.explorer.sources import Sources
from rollout.explorer.view import View, as_code
from rollout.settings import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP, GRID, CODE = range(3)


class Explorer(widgets.VBox):
    """What `explore` returns.

    Attributes:
        view: what is shown.
        session: the recorded image; None once closed.
    """

    def __init__(self, sources: Sources, session: Session, view: View, output_folder: Path) -> None:
        self.output_folder = output_folder
        self.session: Session | None = session
        self.view = view
        self._sources = sources
        self._build()
        super().__init__([self.status, self._body])
        self._enter(session, view, main_frame(session, view))

    def _build(self) -> None:
        self.controls = Controls(self._sources.images, self.view.model)
        self.status = StatusLine()
        self.canvas, self.grid_canvas = MapCanvas(), MapCanvas(follow=False, largest=130)
        self.shares, self.curve, self.code_box = widgets.HTML(), widgets.HTML(), CopyText()
        self.colours = widgets.Image(layout={"height": "100px", "margin": "10px 8px 0 0"})
        below = widgets.HBox([self.colours, self.curve, self.shares])
        self.tabs = widgets.Tab(
            [widgets.VBox([self.canvas, below]), self.grid_canvas, self.code_box],
            titles=["map", "blocks and heads", "code"],
            layout={"flex": "1 1 400px", "min_width": "0"},
        )
        self._body = widgets.HBox(
            [self.controls.column(), self.tabs],
            # Where both do not fit beside each other, the picture is above the controls.
            layout={"width": "100%", "flex_flow": "row wrap-reverse", "align_items": "flex-end"},
        )

    # What is shown

    @property
    def _live(self) -> Session:
        if self.session is None:
            raise RuntimeError("this explorer was closed when its cell ran again; use the new one")
        return self.session

    def load(self, model: str, image: str) -> None:
        """Another model or image; settings that the new model cannot take fall back."""
        self.status.busy(f"Running {model} on {Path(image).name} ...")
        session = self._sources.session(model, image)
        view = replace(
            self.view,
            model=model,
            image=image,
            given=self._sources.given(model, image),
            target=session.predicted,
            rival=None,
        ).with_settings(query=None)
        if model != self.view.model:
            view = view.with_settings(start_block=0, end_block=None, head=None)
        self._enter(session, view, main_frame(session, view))

    def upload(self, name: str, content: bytes) -> None:
        image = self._sources.add_upload(name, content)
        with self.controls.setting():
            self.controls.image.options = short_names(self._sources.images)
        self.load(self.view.model, image)

    def _enter(self, session: Session, view: View, frame: Frame) -> None:
        self.session = session
        session.progress = self.status.progress
        self._curves = Kept(16)
        self.controls.fit(session)
        for canvas in (self.canvas, self.grid_canvas):
            canvas.show_picture(session.picture())
        self.colours.value = self.canvas.picture
        self._paint(view, frame)

    def show(self, view: View) -> None:
        self.status.announce(self._live, self.view, view)
        self._paint(view, main_frame(self._live, view))

    def hover(self, patch: Patch | None) -> None:
        """All patches at once where that is quick: the browser then follows the mouse alone."""
        every = traces(self._live, self.view) if patch else None
        if every is not None:
            self.canvas.show_traces(every)
        else:
            self.canvas.show(main_frame(self._live, self.view, patch))

    def _paint(self, view: View, frame: Frame) -> None:
        """The picture first; what is beside it takes longer."""
        self.view = view
        self.canvas.show(frame)
        self.controls.write(view)
        self.set_follow()
        self.status.say(described(self._live, view))
        self.curve.value = as_svg(
            sweep_curve(self._live, view, self._curves), view.settings.discard_ratio
        )
        self.shares.value = shares_table(self._live.shares(frame.panels[0].values), view)
        self.show_tab()

    def show_tab(self) -> None:
        """What is on the other tabs is made when they are opened."""
        if self.tabs.selected_index == GRID:
            self.grid_canvas.show(grid_frame(self._live, self.view))
        elif self.tabs.selected_index == CODE:
            self.code_box.text = self.code

    def _frame(self) -> Frame:
        """What the open tab shows."""
        make = grid_frame if self.tabs.selected_index == GRID else main_frame
        return make(self._live, self.view)

    @property
    def code(self) -> str:
        """The calls that make what is shown, ready to run."""
        label, rival = (self._live.label(index) for index in (self.view.target, self.view.rival))
        return as_code(self.view, label, rival)

    def set_follow(self) -> None:
        """Hovering waits for no map that takes seconds, and asks for none that there is not."""
        traced = self.view.method in CHAINED and METHODS[self.view.method].traces
        self.canvas.follow = self.controls.follow.value and traced

    # What is said

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it, or say in a sentence why not."""
        try:
            action()
        except Exception as error:  # a front end would drop the traceback, and look dead
            self.status.problem(error)
            if self.session is not None:
                self.controls.write(self.view)  # they say what is shown, not what was refused

    # The notebook's side

    def figure(self) -> "Figure":
        """What the open tab shows."""
        return plot_frame(self._frame(), self._live.picture())

    def save(self) -> list[Path]:
        """Write the picture as PNG and PDF and the settings as JSON; returns the files."""
        self.status.busy("Drawing the picture ...")
        label = self._live.short_label(self.view.target)
        files = save_view(self.figure(), self.view, label, self.output_folder)
        self.status.say(
            f"Saved {files[0]}, and beside it the same as .pdf and its settings as .json"
        )
        return files

    def close(self) -> None:
        """Take it off the page, and let go of the recorded image."""
        if self.session is None:
            return
        open_widgets.forget(self)
        self.session = None
        open_widgets.close_with_parts(self)

    def __repr__(self) -> str:
        return f"Explorer({self.view.model}, {self.view.image}, {self.view.method})"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """With a picture of the current view, for pages without a kernel."""
        bundle = super()._repr_mimebundle_(**options)
        if self.session is not None:
            png = frame_png(self._frame(), self.session.picture())
            bundle["image/png"] = base64.b64encode(png).decode()
        return bundle
