"""Several methods beside each other, each on a scale of its own: a click chooses one."""

from dataclasses import replace

from rollout.explorer.captions import caption, source, unit_of
from rollout.explorer.panel import Frame, Panel, ends
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.explorer.waiting import waits
from rollout.names import one_line
from rollout.settings import METHODS, titled


def methods_shown(session: Session, view: View) -> list[str]:
    """Those of the view that make sense here, and are quick or known already."""
    known = [name for name in view.methods if name in session.methods]
    return [name for name in known if not waits(session, fitting(view, name))] or [view.method]


def methods_frame(session: Session, view: View) -> Frame:
    """The map of each method with the view's settings, and below it what lies on each object."""
    view = view.kept()
    shown = methods_shown(session, view)
    panels = [_panel(session, view, method) for method in shown]
    later = [METHODS[name].title for name in view.methods if name not in shown]
    missing = f"; left out, as it takes long or has no class: {', '.join(later)}" if later else ""
    return Frame(
        tuple(panels),
        len(panels),
        view.opacity,
        view.settings.query,
        view.scale,
        shared=False,
        picks=True,
        extent=session.recording.layout.extent,
        caption=f"{_followed(session, view)}{caption(session, view)}{missing}",
        source=source(view),
    )


def _followed(session: Session, view: View) -> str:
    """What the methods with gradients follow."""
    target = one_line(view.score_name) or session.short_label(view.target)
    return f"for {target}: " if target else ""


def _panel(session: Session, view: View, method: str) -> Panel:
    view = fitting(view, method)
    values = session.relevance(method, view.target, view.settings)
    ((low, high),) = ends([values], view.scale, [view.settings.query], shared=False)
    unit = unit_of(session, view)
    shares = [
        f"{one_line(label)} {mass:.0%}" for label, (mass, _) in session.shares(values).items()
    ]
    name = METHODS[method].title
    return Panel(
        titled(method, view.settings),
        values,
        high,
        low,
        over=True,
        unit=unit,
        name=name,
        note="\n".join(shares),
    )


def fitting(view: View, method: str) -> View:
    """The view with another method, and without the settings that this one cannot take."""
    known, settings = METHODS[method], view.settings
    kept = {
        "query": settings.query if known.traces else None,
        "legacy": settings.legacy and known.legacy,
        "backward": settings.backward if known.gradients else "plain",
    }
    return replace(view.with_settings(**kept), method=method)
