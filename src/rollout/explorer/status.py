"""The line above the explorer's picture: what is shown, what is being done, what went wrong."""

import html

import ipywidgets as widgets

from rollout.explorer.session import Session
from rollout.explorer.text import busy, line, problem
from rollout.explorer.view import View
from rollout.methods import METHODS

NOTICED = 0.2  # seconds that a change may take before one asks oneself whether anything happens


class StatusLine(widgets.HTML):
    """Two lines high, so that the picture below never moves."""

    def __init__(self) -> None:
        super().__init__(layout={"height": "40px", "overflow": "auto"})

    def say(self, sentence: str) -> None:
        self.value = line(html.escape(sentence))

    def busy(self, sentence: str) -> None:
        self.value = busy(sentence)

    def problem(self, error: Exception) -> None:
        self.value = problem(error)

    def progress(self, share: float) -> None:
        self.busy(f"Solving the flow to every patch: {share:.0%}")

    def announce(self, session: Session, before: View, view: View) -> None:
        """Say what is being done where it takes long; a flash would only be in the way."""
        followed = {view.target, view.rival} - {before.target, before.rival, None}
        if view.method == "attention_flow":
            self.busy("Solving the flow to every patch ...")
        elif METHODS[view.method].gradients and followed and session.slowest > NOTICED:
            self.busy(f"Following {session.label(followed.pop())} back through the network ...")
