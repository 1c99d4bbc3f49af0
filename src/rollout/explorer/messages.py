"""The line above the explorer's picture: what is shown, what is being done, what went wrong."""

import html
from collections.abc import Callable, Mapping

import ipywidgets as widgets

from rollout.explanations.targets import Chosen
from rollout.explorer.frame import blind_to_class
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.names import one_line
from rollout.settings import METHODS

NOTICED = 0.2  # seconds that a change may take before one asks oneself whether anything happens


class StatusLine(widgets.HTML):
    """Two lines high, so that the picture below never moves.

    Attributes:
        said: called with each sentence, without its looks.
    """

    def __init__(self) -> None:
        super().__init__(layout={"height": "36px", "overflow": "auto", "flex": "1 1 auto"})
        self.said: Callable[[str], object] = lambda sentence: None
        self._doing = ""

    def say(self, sentence: str) -> None:
        self.value = line(html.escape(sentence))
        self.said(sentence)

    def busy(self, sentence: str) -> None:
        self.value = busy(sentence)
        self.said(sentence)

    def problem(self, error: Exception) -> None:
        self.value = problem(error)
        self.said(f"Not done: {as_sentence(error)}")

    def progress(self, share: float) -> None:
        self.value = busy(f"{self._doing}: {share:.0%}")

    def announce(self, session: Session, before: View, view: View) -> None:
        """Say what is being done where it takes long; a flash would only be in the way."""
        method = METHODS[view.method]
        followed = {view.target, view.rival} - {before.target, before.rival, None}
        if session.takes(view.method, view.settings) > NOTICED:
            self._doing = f"Computing {method.title}, patch by patch"
            self.busy(f"{self._doing} ...")
        elif method.gradients and followed and session.slowest > NOTICED:
            self.busy(
                f"Following {one_line(session.label(followed.pop()))} back through the network ..."
            )


LONGEST = 600  # characters of a message


SPINNER = """\
<style>@keyframes rollout-turn { to { transform: rotate(360deg) } }</style>
<span style="display:inline-block;width:11px;height:11px;margin-right:7px;border-radius:50%;
border:2px solid #d84315;border-top-color:transparent;animation:rollout-turn 0.8s linear infinite">
</span>"""


def line(content: str) -> str:
    """At most two lines fit above the picture, so that it never moves."""
    return f'<div style="line-height:1.4">{content}</div>'


def busy(sentence: str) -> str:
    return line(f'<b class="rollout-busy">{SPINNER}{html.escape(sentence)}</b>')


def as_sentence(error: Exception) -> str:
    """An error's words; what is not one of ours says its kind."""
    message = " ".join(str(error).split()) or "no message"
    message = message.replace("use legacy=False", "untick the arithmetic of vit-explain")
    if not isinstance(error, ValueError | OSError | TypeError | RuntimeError):
        message = f"{type(error).__name__}: {message}"
    return message if len(message) <= LONGEST else message[:LONGEST] + " ..."


def problem(error: Exception) -> str:
    words = html.escape(as_sentence(error))
    return line(f'<span class="rollout-problem">\u26a0 {words}</span>')


def described(session: Session, view: View) -> str:
    """What is shown, and what a person might trip over."""
    rows, columns = session.grid_size
    parts = [
        f"{view.model} on {view.image}: {session.num_blocks} blocks of {session.num_heads} heads, "
        f"{rows} \u00d7 {columns} patches."
    ]
    if view.settings.query is not None:
        row, column = view.settings.query
        parts.append(
            f"Traced from row {row}, column {column}: click it again, or Escape, to go back."
        )
    parts += _dominated(session, view)
    if blind_to_class(view):
        title = METHODS[view.method].title.capitalize()
        parts.append(f"{title} is the same for every class, so the difference is 0.")
    return " ".join(parts)


def cure(session: Session, view: View) -> int | None:
    """The first block that should count, so that no patch dominates; None where none does."""
    found = [session.dominance(view.method, target, view.settings) for target in _shown(view)]
    return max((one.start_block for one in found if one and one.start_block), default=None)


def _shown(view: View) -> list[Chosen | None]:
    """The targets whose maps differ."""
    several = view.rival is not None and not blind_to_class(view)
    return [view.target, view.rival] if several else [view.target]


def _dominated(session: Session, view: View) -> list[str]:
    """A sentence for each map that one patch dominates."""
    targets, sentences = _shown(view), []
    for target in targets:
        found = session.dominance(view.method, target, view.settings)
        if found is not None:
            several = len(targets) > 1
            sentence = f"{session.short_label(target)}: {found}." if several else f"{found}."
            sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


def shares_table(shares: Mapping[str, tuple[float, float]], view: View) -> str:
    """How much of the map lies on each object of the answer key."""
    if not shares:
        return ""
    rows = [
        f"<tr><td>{html.escape(one_line(label))}</td><td>{mass:.0%}</td><td>{area:.0%}</td></tr>"
        for label, (mass, area) in shares.items()
    ]
    mass, area = (1 - sum(column) for column in zip(*shares.values(), strict=True))
    rows.append(f"<tr><td>elsewhere</td><td>{mass:.0%}</td><td>{area:.0%}</td></tr>")
    return (
        '<table class="rollout-shares" style="line-height:1.35;font-size:12px;text-align:right">'
        '<tr><th style="text-align:left">lies on</th><th>&emsp;map</th><th>&emsp;image</th></tr>'
        + "".join(rows).replace("<tr><td>", '<tr><td style="text-align:left">')
        + "</table>"
    )
