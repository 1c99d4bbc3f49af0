"""Every block and head alone, side by side: in order, or sorted by how they look."""

from dataclasses import replace
from math import ceil, sqrt

import numpy as np
import torch

from rollout.explorer.captions import rest, source, unit_of
from rollout.explorer.panel import Frame, Panel, ends
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.maths.dominance import largest_share
from rollout.maths.metrics import relative_entropy
from rollout.settings import METHODS

WIDE = 2  # how many times as wide as high is the room for panels that stand in no order of blocks

SORTED = {"entropy": "entropy / log(patches)", "largest": "share of the largest patch"}


def places(session: Session, view: View) -> list[tuple[int, int]]:
    """Which (block, head), from 0, each panel shows: depth runs to the right, or as sorted."""
    return list(_measured(session, view))


def _measured(session: Session, view: View) -> dict[tuple[int, int], float]:
    """`places` with what they are sorted by; NaN where they stand in the order of blocks."""
    blocks, heads = session.num_blocks, session.num_heads
    in_order = [(block, head) for head in range(heads) for block in range(blocks)]
    if view.grid_order == "blocks":
        return dict.fromkeys(in_order, np.nan)
    measured = dict(zip(in_order, _measures(session, view, in_order), strict=True))
    sign = 1 if view.grid_order == "entropy" else -1  # the most focused first
    order = sorted(
        in_order, key=lambda place: sign * np.nan_to_num(measured[place], nan=sign * 2.0)
    )
    return {place: measured[place] for place in order}


def _measures(session: Session, view: View, order: list[tuple[int, int]]) -> list[float]:
    """How focused each map is; NaN for one that is 0 everywhere."""
    maps = [_grid(session, view)[place] for place in order]
    if view.grid_order == "largest":
        return [largest_share(one) for one in maps]
    return relative_entropy(torch.from_numpy(np.stack(maps))).tolist()


def _grid(session: Session, view: View) -> np.ndarray:
    return session.grid(view.method, view.target, view.settings)


def _own_unit(view: View) -> str:
    logarithmic = view.scale == "log"
    return "along the panel's logarithmic scale" if logarithmic else "part of the panel's scale"


def grid_frame(session: Session, view: View) -> Frame:
    """Blocks from left to right and heads from top to bottom; sorted, row by row."""
    measured, grid = _measured(session, view), _grid(session, view)
    maps = [grid[place] for place in measured]
    in_order, shared = view.grid_order == "blocks", view.grid_shared
    titles = [f"block {block + 1}, head {head + 1}" for block, head in measured]
    if not in_order:
        pairs = zip(titles, measured.values(), strict=True)
        titles = [f"{title}: {value:.2f}" for title, value in pairs]
    scales = ends(maps, view.scale, [view.settings.query] * len(maps), shared=shared)
    panels = [
        Panel(title, values, high, low, over=True)
        for title, values, (low, high) in zip(titles, maps, scales, strict=True)
    ]
    panels[-1] = replace(panels[-1], unit=unit_of(session, view) if shared else _own_unit(view))
    heads = (f"head {head + 1}" for head in range(session.num_heads * in_order))
    blocks = (f"block {block + 1}" for block in range(session.num_blocks * in_order))
    by = "" if in_order else f", sorted by {SORTED[view.grid_order]}"
    return Frame(
        tuple(panels),
        session.num_blocks if in_order else ceil(sqrt(WIDE * len(panels))),
        view.opacity,
        view.settings.query,
        view.scale,
        shared,
        row_labels=tuple(heads),
        column_labels=tuple(blocks),
        small=True,
        picks=True,
        extent=session.recording.layout.extent,
        caption=f"{METHODS[view.method].title}, each block and head alone{by}, {rest(view)}",
        source=source(view),
    )
