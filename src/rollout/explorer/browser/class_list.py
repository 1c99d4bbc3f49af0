"""The classes of a model in the browser: by probability, searchable, to choose from."""

import anywidget
import numpy as np
import traitlets

from rollout.explorer.browser.scripts import script, style


class ClassList(anywidget.AnyWidget):
    """A search field above the most likely classes.

    Attributes:
        labels: one per class; sent when the model changes.
        probabilities, logits: float32, (classes,).
        target, rival: the classes that are shown; -1 for none.
        also: the further classes of a target that is a set.
        empty: what to say where there are none.
        wanted: what the user chose last, {"target": index} {"rival": index or -1} or
            {"toggle": index} of a set, and a number.
        answered: the number of the choice that was dealt with last; until then its row is marked.
    """

    _esm = script("floats", "class_list")
    _css = style("class_list")
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    probabilities = traitlets.Bytes().tag(sync=True)
    logits = traitlets.Bytes().tag(sync=True)
    empty = traitlets.Unicode("this model has no classes").tag(sync=True)
    target = traitlets.Int(-1).tag(sync=True)
    also = traitlets.List(traitlets.Int()).tag(sync=True)
    rival = traitlets.Int(-1).tag(sync=True)
    wanted = traitlets.Dict().tag(sync=True, echo_update=False)
    answered = traitlets.Int(0).tag(sync=True)

    def show(self, labels: tuple[str, ...], probabilities: np.ndarray, logits: np.ndarray) -> None:
        """The classes of a new model or image."""
        with self.hold_sync():
            self.labels = list(labels)
            self.logits = logits.astype("<f4").tobytes()
            self.probabilities = probabilities.astype("<f4").tobytes()

    def mark(self, targets: list[int], rivals: list[int]) -> None:
        """The classes that are shown; none, one, or the several of a set."""
        with self.hold_sync():
            self.target, *self.also = targets or [-1]
            self.rival = rivals[0] if rivals else -1
