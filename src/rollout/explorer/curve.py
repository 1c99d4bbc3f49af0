"""The discard sweep as a small curve: what a ratio does to the map, before one tries them all."""

import html
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rollout.explanations.kept_maps import Kept
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.maths.metrics import mass_on_object, rank_correlation
from rollout.names import one_line
from rollout.settings import METHODS, Settings

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 250, 108, 30, 26, 18


LONGEST = 0.7  # seconds that a curve may take; a slower one has the ratios that were shown


@dataclass(frozen=True)
class Curve:
    """A measure of the map for some discard ratios, in order; `name` says which."""

    name: str
    ratios: tuple[float, ...]
    values: np.ndarray

    def at(self, ratio: float) -> float:
        """NaN between points of which one has no value: a map of zeros has none."""
        return float(np.interp(ratio, self.ratios, self.values))


def sweep_curve(session: Session, view: View, kept: Kept) -> Curve | None:
    """The share of the map on the target's mask, or the rank correlation with the map of ratio 0.

    Args:
        kept: where earlier curves are.

    Returns:
        For methods that take long a curve through the ratios that were shown so far; None where
        they say nothing.
    """
    target = view.target if METHODS[view.method].gradients else None
    plain = replace(view.settings, discard_ratio=0.0)
    if session.takes(view.method, view.settings) * len(RATIOS) > LONGEST:
        return _through_shown(session, view, plain)
    key = (view.method, target, view.target, plain)
    return kept.get(key, lambda: _sweep(session, view, plain))


def _sweep(session: Session, view: View, plain: Settings) -> Curve:
    maps = session.recording.relevances(
        view.method, view.target, plain, [plain.head_fusion], RATIOS
    )
    return _measured(session, view, RATIOS, maps[0, :, 0])


def _through_shown(session: Session, view: View, plain: Settings) -> Curve | None:
    """Through the maps that are kept: nothing is computed."""
    shown = {*RATIOS, view.settings.discard_ratio, *session.shown_ratios}
    known = {ratio: replace(plain, discard_ratio=ratio) for ratio in sorted(shown)}
    maps = {
        ratio: torch.from_numpy(session.relevance(view.method, view.target, settings))
        for ratio, settings in known.items()
        if session.has(view.method, view.target, settings)
    }
    on_mask = session.label(view.target) in session.coverage
    if not maps or not (on_mask or 0.0 in maps):
        return None
    return _measured(session, view, tuple(maps), torch.stack(list(maps.values())))


def _measured(session: Session, view: View, ratios: tuple[float, ...], maps: Tensor) -> Curve:
    """Of maps (ratios, rows, columns)."""
    label = session.label(view.target)
    if label in session.coverage:
        covered = session.coverage[label].expand(maps.shape)
        name = f"share on the {one_line(label)}'s mask"
        return Curve(name, ratios, mass_on_object(maps, covered).numpy())
    undiscarded = maps[ratios.index(0.0)].expand(maps.shape)
    values = rank_correlation(maps, undiscarded).numpy()
    return Curve("rank correlation with ratio 0", ratios, values)


def as_svg(curve: Curve | None, ratio: float) -> str:
    """The curve with the current ratio marked; in the notebook's own colours."""
    if curve is None:
        return ""
    values = np.nan_to_num(curve.values)
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))

    def place(at: float, value: float) -> tuple[float, float]:
        across = LEFT + at * (WIDTH - LEFT - 8)
        return across, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="#1976d2"/>'
        for x, y in map(place, curve.ratios, values)
    )
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, curve.ratios, values))
    (x, y), (left, bottom), (right, top) = (
        place(ratio, float(np.nan_to_num(curve.at(ratio)))),
        place(0, low),
        place(1, high),
    )
    here = "no value" if np.isnan(curve.at(ratio)) else f"{curve.at(ratio):.2f}"
    said = f"{curve.name}: {here} at discard ratio {ratio:g}"
    ink, grey = "var(--jp-ui-font-color1, #222)", "var(--jp-ui-font-color2, #666)"
    return f"""
<svg class="rollout-curve" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="11" fill="{grey}"
font-family="sans-serif" role="img" aria-label="{html.escape(said)}">
<text x="{LEFT}" y="11" fill="{ink}">{html.escape(curve.name)}: {here}</text>
<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="{grey}"/>
<text x="{LEFT - 5}" y="{top + 4}" text-anchor="end">{high:.0f}</text>
<text x="{LEFT - 5}" y="{bottom}" text-anchor="end">{low:.0f}</text>
<text x="{LEFT}" y="{HEIGHT - 12}" text-anchor="middle">0</text>
<text x="{right}" y="{HEIGHT - 12}" text-anchor="middle">1</text>
<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">discard ratio</text>
<polyline points="{points}" fill="none" stroke="#1976d2" stroke-width="1.8"/>{dots}
<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#d84315" stroke-dasharray="3 2"/>
<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#d84315"/>
</svg>"""
