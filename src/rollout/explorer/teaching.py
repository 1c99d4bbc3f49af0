"""A lesson in the explorer: a click on a step sets everything; the class predicts, then sees."""

from functools import partial
from typing import Any

from rollout.explorer.explorer import Explorer
from rollout.explorer.lesson import Lesson, Step
from rollout.explorer.lesson_pane import LessonPane
from rollout.explorer.session import Session

# What a step may say instead of a class, so that it fits any image.
PREDICTED, RUNNER_UP = "predicted", "runner-up"


class Teaching:
    """Puts a lesson beside an explorer's picture; the knobs come back at a click."""

    def __init__(self, explorer: Explorer, lesson: Lesson) -> None:
        self._explorer, self._image = explorer, explorer.view.image
        self.pane = pane = LessonPane(lesson)
        self._knobs, picture = explorer.body.children
        explorer.body.children = [pane, self._knobs, picture]
        self._knobs.layout.display = "none"
        pane.steps.observe(lambda _: self._open(), "value")
        pane.predict.observe(lambda _: self._cover(pane.predict.value), "value")
        pane.reveal.on_click(lambda _: self._cover(False))
        pane.knobs.observe(self._on_knobs, "value")
        self._open()

    def _open(self) -> None:
        """Everything as the step has it; covered until the class has predicted."""
        self._cover(self.pane.predict.value)
        self._explorer.tabs.selected_index = 0
        self._explorer.attempt(partial(self._set, self.pane.step))

    def _set(self, step: Step) -> None:
        explorer, image = self._explorer, step.image or self._image
        session = explorer.recorded(explorer.view.model, image)
        view = explorer.sources.view(session, explorer.view.model, image, resolved(step, session))
        if session is explorer.session:
            explorer.show(view)
        else:
            explorer.enter(session, view, session.beside)

    def _cover(self, covered: bool) -> None:
        change = self._explorer.tabs.add_class if covered else self._explorer.tabs.remove_class
        change("rollout-covered")
        self.pane.tell(covered=covered)

    def _on_knobs(self, change: Any) -> None:
        self._knobs.layout.display = "" if change["new"] else "none"


def resolved(step: Step, session: Session) -> dict[str, Any]:
    """A step's view with the classes that it names by their place."""
    likeliest = (-session.logits).argsort().tolist()
    places = dict(zip((PREDICTED, RUNNER_UP), likeliest, strict=False))
    chosen = {
        name: places[value]
        for name, value in step.view.items()
        if name in ("target", "rival") and isinstance(value, str) and value in places
    }
    return {**step.view, **chosen}
