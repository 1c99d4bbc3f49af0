"""The line above the explorer's picture: what is shown, what is being done, what went wrong."""

import html
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ipywidgets as widgets

from rollout.explorer.frame import blind_to_class, targets_shown
from rollout.explorer.panel import Frame
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.explorer.waiting import NOTICED, quick
from rollout.names import one_line
from rollout.settings import METHODS


class StatusLine(widgets.HTML):
    """Two lines high, so that the picture below never moves.

    Attributes:
        said: called with each sentence, without its looks.
    """

    def __init__(self) -> None:
        height = "calc(36px * var(--rollout-text, 1))"
        super().__init__(layout={"height": height, "overflow": "auto", "flex": "1 1 auto"})
        self.said: Callable[[str], object] = lambda sentence: None
        self._doing = ""

    def say(self, sentence: str) -> None:
        self.value = line(html.escape(sentence))
        self.said(sentence)

    def busy(self, sentence: str) -> None:
        self.value = busy(sentence)
        self.said(sentence)

    @contextmanager
    def working(self, sentence: str, session: Session) -> Iterator[None]:
        """Say it meanwhile, where maps of the session take long."""
        before = self.value
        if session.slowest > NOTICED:
            self.busy(sentence)
        yield
        self.value = before

    def problem(self, error: Exception) -> None:
        self.value = problem(error)
        self.said(f"Not done: {as_sentence(error)}")

    def progress(self, share: float) -> None:
        self.value = busy(f"{self._doing}: {share:.0%}")

    def announce(self, session: Session, before: View, view: View) -> None:
        """Say what is being done where it takes long; a flash would only be in the way."""
        method = METHODS[view.method]
        followed = {view.target, view.rival} - {before.target, before.rival, None}
        if not quick(session, view):
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


def _dominated(session: Session, view: View) -> list[str]:
    """A sentence for each map that one patch dominates."""
    targets, sentences = targets_shown(view), []
    for target in targets:
        found = session.dominance(view.method, target, view.settings)
        if found is not None:
            several = len(targets) > 1
            sentence = f"{session.short_label(target)}: {found}." if several else f"{found}."
            sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


Shares = Mapping[str, tuple[float, float]]  # of an object: of the map's mass, and of the image


def shares_of(session: Session, view: View, frame: Frame) -> str:
    """What lies on the objects in the map, and in a kept one that is of the same image."""
    kept, other = view.compare_with, session.beside or session
    now = session.shares(frame.panels[0].values)
    same = kept is not None and kept.image == view.image
    return shares_table(now, other.shares(frame.panels[1].values) if same else None)


def shares_table(shares: Shares, kept: Shares | None = None) -> str:
    """How much of the map lies on each object of the answer key, and of the map it is beside."""
    if not shares:
        return ""
    heads = ["map", "image"] if kept is None else ["now", "kept", "image"]
    rows: dict[str, tuple[float, ...]] = dict(shares)
    if kept is not None:
        rows = {label: (mass, kept[label][0], area) for label, (mass, area) in shares.items()}
    rows |= {"elsewhere": tuple(1 - sum(column) for column in zip(*rows.values(), strict=True))}
    lines = [
        f'<tr><td style="text-align:left">{html.escape(one_line(label))}</td>'
        + "".join(f"<td>{share:.0%}</td>" for share in values)
        for label, values in rows.items()
    ]
    return (
        '<table class="rollout-shares"><tr><th style="text-align:left">lies on</th>'
        + "".join(f"<th>&emsp;{head}</th>" for head in heads)
        + "</tr>"
        + "</tr>".join(lines)
        + "</tr></table>"
    )
