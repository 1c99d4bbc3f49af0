"""What one click can do about a picture that is hard to read."""

from dataclasses import dataclass, replace

from rollout.explorer.captions import unit_of
from rollout.explorer.frame import targets_shown
from rollout.explorer.session import Session
from rollout.explorer.view import View


@dataclass(frozen=True)
class Cure:
    """What a button offers.

    Attributes:
        words: what it does.
        call: the setting that does it, as `explore` takes it.
        view: what is shown then.
    """

    words: str
    call: str
    view: View


def cure(session: Session, view: View) -> Cure | None:
    """What fits the picture first; None where nothing is odd."""
    kept = view.compare_with
    if kept is not None and view.shared_scale:
        if unit_of(session, view) != unit_of(session.beside or session, kept):
            shown = replace(view, shared_scale=False)
            return Cure("Compare on own scales", "shared_scale=False", shown)
    targets = targets_shown(view)
    found = [session.dominance(view.method, target, view.settings) for target in targets]
    dominant = [one for one in found if one is not None]
    if dominant and view.scale == "max":
        row, column = dominant[0].patch
        words = f"Leave row {row}, column {column} out of the scale"
        return Cure(words, 'scale="auto"', replace(view, scale="auto"))
    first = max((one.start_block or 0 for one in dominant), default=0)
    if not first:
        return None
    several = "block 1" if first == 1 else f"blocks 1 to {first}"
    shown = view.with_settings(start_block=first)
    return Cure(f"Leave {several} out", f"start_block={first}", shown)
