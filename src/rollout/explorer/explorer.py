"""The explorer: every knob of a map beside the map, for JupyterLab and any notebook front end.

Only a new image, model or target runs the network; all else recomputes from what was recorded. A
mistake is answered by a sentence above the picture, and everything else stays as it was.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.display import display

from rollout.explorer import open_widgets
from rollout.explorer.figure import plot_frame
from rollout.explorer.knobs import short_names
from rollout.explorer.saving import save_view
from rollout.explorer.session import Session
from rollout.explorer.sources import Sources
from rollout.explorer.stage import Stage
from rollout.explorer.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Explorer(Stage):
    """What `explore` returns.

    Attributes:
        output_folder: for what is saved and uploaded.
        sources: the models and images that it knows.
    """

    def __init__(self, sources: Sources, session: Session, view: View, output_folder: Path) -> None:
        self.output_folder, self.sources = output_folder, sources
        super().__init__(sources.images, session, view)
        models = [*sources.given_models, *self.controls.model.options]
        self.controls.model.options = list(dict.fromkeys(models))

    # What is asked for

    def recorded(self, model: str, image: str) -> Session:
        """The network's run on an image: one that is shown, or a new one."""
        known = [self._live, self._live.beside]
        if (model, image) not in [one.source for one in known if one is not None]:
            self.status.busy(f"Running {model} on {Path(image).name} ...")
        return self.sources.recording((model, image), known)

    def beside(self, view: View) -> Session | None:
        """The recording of what a view is compared with; None where it is the view's own."""
        kept = view.compare_with
        if kept is None or kept.source == view.source:
            return None
        return self.recorded(*kept.source)

    def load(self, model: str, image: str) -> None:
        """Another model or image; settings that the new model cannot take fall back."""
        session = self.recorded(model, image)
        view = replace(
            self.view,
            model=model,
            image=image,
            given=self.sources.given(model, image),
            target=session.predicted,
            rival=None,
        ).with_settings(query=None)
        if model != self.view.model:
            view = view.with_settings(start_block=0, end_block=None, head=None)
        if view.method not in session.methods:
            view = replace(view, method="attention_rollout")
        self.history.moved(self.view, view)
        self.enter(session, view, self.beside(view))

    def upload(self, name: str, content: bytes) -> None:
        image = self.sources.add_upload(name, content)
        with self.controls.setting():
            self.controls.image.options = short_names(self.sources.images)
        self.load(self.view.model, image)

    def undo(self) -> None:
        """Back to what was shown before."""
        view = self.history.back()
        if view is None:
            self.status.say("Nothing to undo.")
            return
        session, beside = self.recorded(*view.source), self.beside(view)
        if session is self._live and beside is session.beside:
            self.show(view, undone=True)
        else:
            self.enter(session, view, beside)

    def at_first(self, view: View) -> View:
        """The same image through the same model, all else as `explore` has it by default."""
        session = self._live
        method = "gradient_rollout" if session.follows else "attention_rollout"
        kept = {name: getattr(view, name) for name in ("image", "model", "given", "score_name")}
        return View(**kept, method=method, target=session.predicted)

    # What is taken away

    def figure(self) -> "Figure":
        """What the open tab shows."""
        self.slow.wait()
        return plot_frame(self._frame(), self._live.picture())

    def save(self) -> list[Path]:
        """Write picture, numbers, settings and call, see `saving.save_view`; returns the files."""
        self.status.busy("Drawing the picture ...")
        figure, frame = self.figure(), self._frame()
        label = self._live.short_label(self.view.target) or self.view.score_name
        files = save_view(figure, frame, self.view, label, self.code, self.output_folder)
        kinds = ", ".join(file.suffix for file in files[1:])
        saved = f"Saved {files[0]}, and beside it {kinds}: map, settings, call"
        self.status.say(saved)
        self.controls.answer(saved)
        return files

    def close(self) -> None:
        """Take it off the page, and let go of the recorded image."""
        if self.session is None:
            return
        open_widgets.forget(self)
        self.slow.close()
        self.still.forget()
        self.session = None
        open_widgets.close_with_parts(self)

    def retire(self) -> None:
        """Close it, and say so below the picture that it leaves."""
        self.still.update(open_widgets.RETIRED)
        self.close()

    def __repr__(self) -> str:
        return f"Explorer({self.view.model}, {self.view.image}, {self.view.method})"

    def _ipython_display_(self) -> None:
        """The widget, and its picture for pages without a kernel."""
        if self.session is None:
            print(open_widgets.CLOSED)
            return
        display(self._repr_mimebundle_(), raw=True)
        self.still.show()
