"""The lesson beside the picture: its steps, a question, and after it a caption and an equation."""

import html

import ipywidgets as widgets

from rollout.explorer.lesson import Lesson, Step


class LessonPane(widgets.VBox):
    """What a class sees of a lesson.

    Attributes:
        steps: the buttons; the value is the number of the step, from 0.
        predict: whether the map is covered until the class has answered.
        reveal, knobs: uncover it; show the explorer's controls.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        titles = [(f"{number}  {step.title}", number - 1) for number, step in _numbered(lesson)]
        self.steps = widgets.ToggleButtons(options=titles, style={"button_width": "300px"})
        self.predict = widgets.Checkbox(description="predict, then reveal", indent=False)
        self.reveal = widgets.Button(description="Reveal", button_style="primary")
        self.knobs = widgets.ToggleButton(description="knobs", tooltip="show the controls")
        self._words = widgets.HTML()
        title = widgets.HTML(f'<b class="rollout-lesson-title">{html.escape(lesson.title)}</b>')
        below = widgets.HBox([self.predict, self.knobs])
        super().__init__([title, self.steps, self._words, self.reveal, below])
        self.add_class("rollout-lesson")
        self.layout.flex = "0 0 330px"
        self.tell(covered=False)

    @property
    def step(self) -> Step:
        return self.lesson.steps[self.steps.value]

    def tell(self, *, covered: bool) -> None:
        """The question alone, or the answer, too."""
        step = self.step
        parts = [("question", step.question)]
        if not covered:
            parts += [("caption", step.caption), ("equation", step.equation)]
        self._words.value = "".join(
            f'<div class="rollout-{kind}">{html.escape(words)}</div>'
            for kind, words in parts
            if words
        )
        self.reveal.layout.display = "" if covered else "none"


def _numbered(lesson: Lesson) -> list[tuple[int, Step]]:
    return list(enumerate(lesson.steps, 1))
