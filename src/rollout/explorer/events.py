"""What a hand does to the explorer's controls and pictures, and what is asked for with it."""

from dataclasses import replace
from functools import partial
from typing import Any

from rollout.explanations.targets import Chosen
from rollout.explorer.comparing import keep
from rollout.explorer.cures import cure
from rollout.explorer.explorer import Explorer
from rollout.explorer.grid import places
from rollout.explorer.panel import Patch
from rollout.explorer.panes import MAP
from rollout.explorer.side_by_side import fitting, methods_shown
from rollout.explorer.view import indices


class Events:
    """Listens to an explorer's widgets; every answer goes through `Explorer.attempt`."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._controls = controls = explorer.controls
        for knob in controls.knobs:
            knob.observe(self._on_knob, "value")
        controls.image.observe(self._on_source, "value")
        controls.model.observe(self._on_source, "value")
        controls.upload.received = self._on_upload
        controls.classes.observe(self._on_class, "wanted")
        controls.play.observe(self._on_play, "value")
        controls.follow.observe(lambda _: explorer.attempt(explorer.set_follow), "value")
        controls.whole.on_click(lambda _: self._show_whole())
        controls.reset.on_click(lambda _: self._reset())
        controls.undo.on_click(lambda _: explorer.attempt(explorer.undo))
        controls.cure.on_click(lambda _: self._cure())
        controls.stop.on_click(lambda _: explorer.attempt(explorer.leave))
        explorer.edge.undo = partial(explorer.attempt, explorer.undo)
        controls.keep.on_click(lambda _: self._show(keep(explorer.wanted)))
        controls.save.on_click(lambda _: explorer.attempt(explorer.save))
        explorer.canvas.observe(self._on_pointer, "pointer")
        explorer.grid_canvas.observe(self._on_grid_pointer, "pointer")
        explorer.panes.methods_canvas.observe(self._on_methods_pointer, "pointer")
        explorer.tabs.observe(lambda _: explorer.attempt(explorer.show_tab), "selected_index")

    def _show(self, view: Any) -> None:
        self._explorer.attempt(partial(self._explorer.show, view))

    def _on_knob(self, _: Any) -> None:
        if not self._controls.quiet:
            explorer = self._explorer
            explorer.attempt(lambda: explorer.show(self._controls.read(explorer.wanted)))

    def _on_play(self, change: Any) -> None:
        """The last block steps on; the first stays."""
        first = self._controls.blocks.value[0]
        if not self._controls.quiet:
            self._controls.blocks.value = first, max(first, change["new"])

    def _on_class(self, change: Any) -> None:
        wanted, view = change["new"], self._explorer.wanted
        target, rival = wanted.get("target", view.target), wanted.get("rival", view.rival)
        if "toggle" in wanted:
            target = toggled(view.target, wanted["toggle"])
        rival = None if rival in (-1, target) else rival
        kept = view.compare_with if rival is None else None  # one comparison at a time
        self._show(replace(view, target=target, rival=rival, compare_with=kept))
        self._controls.classes.answered = wanted.get("number", 0)

    def _on_pointer(self, _: Any) -> None:
        explorer = self._explorer
        pointer, pinned = explorer.canvas.pointed(), explorer.view.settings.query
        if pointer.kind in ("hover", "leave"):
            hover: Patch | None = pointer.patch if pointer.kind == "hover" else None
            explorer.attempt(partial(explorer.hover, hover))
            return
        if explorer.canvas.frame["panels"][pointer.panel].get("other"):
            explorer.status.say("The kept view stays as it is: click on a patch of the left map.")
            return
        released = pointer.kind == "escape" or (pointer.kind == "click" and pointer.patch == pinned)
        self._show(explorer.view.with_settings(query=None if released else pointer.patch))

    def _on_grid_pointer(self, _: Any) -> None:
        """A click on a panel of the grid shows its block and head alone."""
        explorer, pointer = self._explorer, self._explorer.grid_canvas.pointed()
        if pointer.kind == "click":
            block, head = places(explorer._live, explorer.view)[pointer.panel]
            explorer.tabs.selected_index = MAP
            self._show(
                explorer.view.with_settings(start_block=block, end_block=block + 1, head=head)
            )

    def _on_methods_pointer(self, _: Any) -> None:
        """A click on one of several methods shows it alone."""
        explorer, pointer = self._explorer, self._explorer.panes.methods_canvas.pointed()
        if pointer.kind == "click":
            method = methods_shown(explorer._live, explorer.view)[pointer.panel]
            explorer.tabs.selected_index = MAP
            self._show(fitting(explorer.view, method))

    def _on_source(self, _: Any) -> None:
        if not self._controls.quiet:
            model, image = self._controls.model.value.strip(), self._controls.image.value
            self._explorer.attempt(partial(self._explorer.load, model, image))

    def _on_upload(self, name: str, content: bytes) -> None:
        self._explorer.attempt(partial(self._explorer.upload, name, content))

    def _show_whole(self) -> None:
        view = self._explorer.wanted
        self._show(view.with_settings(start_block=0, end_block=None, head=None))

    def _cure(self) -> None:
        explorer = self._explorer
        found = explorer.session and cure(explorer.session, explorer.view)
        if found:
            self._show(found.view)

    def _reset(self) -> None:
        """All as in the papers, but for what is looked at: the image, the model, the score."""
        explorer, view = self._explorer, self._explorer.view
        self._controls.follow.value = True
        explorer.attempt(lambda: explorer.show(explorer.at_first(view)))


def toggled(target: Chosen | None, index: int) -> Chosen:
    """A target with a class more, or less; never without any."""
    classes = frozenset(indices(target)) ^ {index} or frozenset([index])
    return min(classes) if len(classes) == 1 else classes
