"""The discard sweep as a small curve: what a ratio does to the map, before one tries them all."""

import html
from dataclasses import dataclass, replace

import numpy as np

from rollout.explanations.kept_maps import Kept
from rollout.explanations.methods import CHAINED
from rollout.explanations.sweep import sweep
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.names import one_line

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 250, 108, 30, 26, 18


@dataclass(frozen=True)
class Curve:
    """A measure of the map for each discard ratio; `name` says which."""

    name: str
    ratios: tuple[float, ...]
    values: np.ndarray

    def at(self, ratio: float) -> float:
        return float(np.interp(ratio, self.ratios, self.values))


def sweep_curve(session: Session, view: View, kept: Kept) -> Curve | None:
    """The share of the map on the target's mask, or the rank correlation with the map of ratio 0.

    Args:
        kept: where earlier curves are.

    Returns:
        None where every point takes as long as a map does, and without a class.
    """
    target = view.target
    if view.method not in CHAINED or target is None or view.settings.legacy:
        return None
    key = (view.method, target, replace(view.settings, discard_ratio=0.0))
    return kept.get(key, lambda: _sweep(session, view, target))


def _sweep(session: Session, view: View, target: int) -> Curve:
    recording, settings = session.recording, view.settings
    table = sweep(
        recording.model,
        recording,
        methods=[view.method],
        head_fusions=[settings.head_fusion],
        discard_ratios=RATIOS,
        targets=[target],
        coverage=session.coverage or None,
        start_block=settings.start_block,
        end_block=settings.end_block,
        head=settings.head,
        query=settings.query,
        legacy=settings.legacy,
        backward=settings.backward,
    )
    label = session.label(target)
    if label in session.coverage:
        return Curve(
            f"share on the {one_line(label)}'s mask", RATIOS, table["target_mass"].to_numpy()
        )
    return Curve("rank correlation with ratio 0", RATIOS, table["rank_correlation"].to_numpy())


def as_svg(curve: Curve | None, ratio: float) -> str:
    """The curve with the current ratio marked; in the notebook's own colours."""
    if curve is None:
        return ""
    values = np.nan_to_num(curve.values)
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))

    def place(at: float, value: float) -> tuple[float, float]:
        across = LEFT + at * (WIDTH - LEFT - 8)
        return across, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, curve.ratios, values))
    (x, y), (left, bottom), (right, top) = (
        place(ratio, curve.at(ratio)),
        place(0, low),
        place(1, high),
    )
    ink, grey = "var(--jp-ui-font-color1, #222)", "var(--jp-ui-font-color2, #666)"
    return f"""
<svg width="{WIDTH}" height="{HEIGHT}" font-size="11" font-family="sans-serif" fill="{grey}">
<text x="{LEFT}" y="11" fill="{ink}">{html.escape(curve.name)}: {curve.at(ratio):.2f}</text>
<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="{grey}"/>
<text x="{LEFT - 5}" y="{top + 4}" text-anchor="end">{high:.0f}</text>
<text x="{LEFT - 5}" y="{bottom}" text-anchor="end">{low:.0f}</text>
<text x="{LEFT}" y="{HEIGHT - 12}" text-anchor="middle">0</text>
<text x="{right}" y="{HEIGHT - 12}" text-anchor="middle">1</text>
<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">discard ratio</text>
<polyline points="{points}" fill="none" stroke="#1976d2" stroke-width="1.8"/>
<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#d84315" stroke-dasharray="3 2"/>
<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#d84315"/>
</svg>"""
