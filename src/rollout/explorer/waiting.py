"""Which views take noticeably long, and what must be ready before they are computed."""

from rollout.explorer.session import Session
from rollout.explorer.view import View

NOTICED = 0.2  # seconds that a change may take before one asks oneself whether anything happens


def quick(session: Session, view: View) -> bool:
    """Whether maps like the view's own are made before anybody notices."""
    return session.takes(view.method, view.settings) <= NOTICED


def waits(session: Session, view: View) -> bool:
    """Whether a map of the view, or of the one it is compared with, is still to be computed."""
    own = not (quick(session, view) or _known(session, view))
    kept = view.compare_with
    return own or (kept is not None and waits(session.beside or session, kept))


def prepare(session: Session, view: View) -> None:
    """Go back through the network for what needs it: no work for another thread."""
    session.prepare(view.method, view.targets, view.settings)
    if view.compare_with is not None:
        prepare(session.beside or session, view.compare_with)


def _known(session: Session, view: View) -> bool:
    return all(session.has(view.method, target, view.settings) for target in view.targets)
