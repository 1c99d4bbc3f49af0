"""What the explorer shows and how it is painted; `explorer.py` has what a person does with it."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import ipywidgets as widgets

from rollout.explanations.kept_maps import Kept
from rollout.explorer import open_widgets
from rollout.explorer.browser.edge import Edge
from rollout.explorer.code import code_of
from rollout.explorer.controls import Controls
from rollout.explorer.cures import cure
from rollout.explorer.curve import as_svg, sweep_curve
from rollout.explorer.figure import frame_png
from rollout.explorer.frame import main_frame, traces
from rollout.explorer.grid import grid_frame
from rollout.explorer.history import History
from rollout.explorer.messages import StatusLine, described, shares_of
from rollout.explorer.panel import Frame, Patch
from rollout.explorer.panes import CODE, GRID, METHODS_SHOWN, Panes
from rollout.explorer.session import Session
from rollout.explorer.side_by_side import methods_frame
from rollout.explorer.slow import Slow
from rollout.explorer.still import Still
from rollout.explorer.view import View
from rollout.explorer.waiting import prepare, quick, waits
from rollout.settings import METHODS

FRAMES = {GRID: grid_frame, METHODS_SHOWN: methods_frame}  # what the tabs beside the map show


class Stage(widgets.VBox):
    """The widgets, and the view that they show.

    Attributes:
        view: what is shown.
        wanted: what was asked for; differs from `view` while a map takes seconds.
        session: the recorded image; None once closed.
    """

    def __init__(self, images: list[str], session: Session, view: View) -> None:
        self.session: Session | None = session
        self.view = self.wanted = view
        self.controls = Controls(images, view.model)
        self.status, self.edge = StatusLine(), Edge()
        self.panes = Panes(self.controls.grid_row())
        self.canvas, self.grid_canvas = self.panes.canvas, self.panes.grid_canvas
        self.tabs, self.shares, self.curve = self.panes.tabs, self.panes.shares, self.panes.curve
        self.body = widgets.HBox(
            [self.controls.column(), self.tabs],
            # Where both do not fit beside each other, the picture is above the controls.
            layout={"width": "100%", "flex_flow": "row wrap-reverse", "align_items": "flex-end"},
        )
        super().__init__([self.edge, self.controls.top_row(self.status), self.body])
        self.add_class("rollout-explorer")
        self.edge.shown = self.model_id
        self.status.said = partial(setattr, self.edge, "said")
        self.history, self.still = History(), Still(self._png, lambda: repr(self))
        self.slow = Slow(self.status.progress)
        self.enter(session, view, session.beside)

    @property
    def _live(self) -> Session:
        if self.session is None:
            raise RuntimeError(open_widgets.CLOSED)
        return self.session

    def enter(self, session: Session, view: View, beside: Session | None = None) -> None:
        """Show another recording, and beside it that of the view it is compared with."""
        before, session.beside = session.beside, beside
        try:
            frame = main_frame(session, view)
        except Exception:  # what makes no sense changes nothing
            session.beside = before
            raise
        if beside is not None:
            beside.beside = None
        self.slow.stop()
        self.session = session
        session.progress = self.status.progress
        self._curves = Kept(16)
        self.controls.fit(session)
        for canvas in self.panes.canvases:
            canvas.show_picture(session.picture())
        self.panes.colours.value = self.canvas.picture
        self._paint(view, frame)

    def show(self, view: View, *, undone: bool = False) -> None:
        """Show a view; a map that takes seconds is computed meanwhile, and can be left.

        Args:
            undone: whether it was shown before, and is no step to go back.
        """
        session = self._live
        self.slow.stop()
        if not undone:
            self.history.moved(self.view, view)
        self.status.announce(session, self.view, view)
        if not waits(session, view):
            self._paint(view, main_frame(session, view))
            return
        self.wanted, self.controls.stop.layout.display = view, ""
        prepare(session, view)

        def compute(report: Callable[[float], None]) -> Frame:
            session.progress = report
            return main_frame(session, view)

        self.slow.start(compute, partial(self._computed, view))

    def _computed(self, view: View, frame: Future) -> None:
        self._live.progress = self.status.progress
        self.attempt(lambda: self._paint(view, frame.result()))

    def leave(self) -> None:
        """Give up what is being computed."""
        self.slow.stop()
        self._paint(self.view, main_frame(self._live, self.view))

    def hover(self, patch: Patch | None) -> None:
        """All patches at once where that is quick: the browser then follows the mouse alone."""
        every = traces(self._live, self.view) if patch else None
        if every is not None:
            self.canvas.show_traces(every)
        else:
            self.canvas.show(main_frame(self._live, self.view, patch), hovered=patch is not None)

    def _paint(self, view: View, frame: Frame) -> None:
        """The picture first; what is beside it takes longer."""
        session = self._live
        self.view = self.wanted = view
        if view.compare_with is None:
            session.beside = None  # nobody looks at it any more
        self.edge.text = view.text
        self.controls.stop.layout.display = "none"
        self.canvas.show(frame)
        self.controls.write(view)
        self.set_follow()
        self.status.say(" ".join(filter(None, [frame.said, described(session, view)])))
        self.controls.offer(cure(session, view))
        curve = sweep_curve(session, view, self._curves)
        self.curve.value = as_svg(curve, view.settings.discard_ratio)
        self.shares.value = shares_of(session, view, frame)
        self.show_tab()

    def show_tab(self) -> None:
        """What is on the other tabs is made when they are opened."""
        if self.panes.open in FRAMES:
            with self.status.working("Computing what this tab shows ...", self._live):
                self.panes.canvases[self.panes.open].show(self._frame())
        elif self.panes.open == CODE:
            self.panes.code.text = self.code
        self.still.changed()

    def _frame(self) -> Frame:
        """What the open tab shows."""
        return FRAMES.get(self.panes.open, main_frame)(self._live, self.view)

    @property
    def code(self) -> str:
        """The calls that make what is shown, ready to run."""
        self.slow.wait()
        return code_of(self._live, self.view)

    def set_follow(self) -> None:
        """Hovering waits for no map that takes seconds, and asks for none that there is not."""
        traced = quick(self._live, self.view) and METHODS[self.view.method].traces
        alone = self.view.compare_with is None  # where two are compared, their values are read
        self.canvas.follow = self.controls.follow.value and traced and alone

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it, or say in a sentence why not."""
        try:
            action()
        except KeyboardInterrupt:
            self.status.say("interrupted; the picture is the one before")
            self._write_back()
            raise
        except Exception as error:  # a front end would drop the traceback, and look dead
            self.status.problem(error)
            self._write_back()

    def _write_back(self) -> None:
        """The controls say what is shown, not what was refused."""
        if self.session is not None:
            self.wanted, self.controls.stop.layout.display = self.view, "none"
            self.controls.write(self.view)

    def _png(self, note: str) -> bytes:
        frame = self._frame()
        said = f"{frame.caption} ({note})" if note else frame.caption
        return frame_png(replace(frame, caption=said), self._live.picture())
