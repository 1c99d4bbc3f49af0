"""What a picture must say beside its titles, to be made again."""

from dataclasses import fields
from pathlib import Path

from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.names import one_line
from rollout.settings import DEFAULTS


def caption(session: Session, view: View) -> str:
    """Blocks, heads and the rest."""
    settings, blocks, heads = view.settings, session.num_blocks, session.num_heads
    first, last = settings.start_block + 1, settings.end_block or blocks
    parts = [f"blocks {first} to {last} of {blocks}"]
    if first == last:
        parts = [f"block {first} of {blocks} alone"]
    elif last - first + 1 == blocks:
        parts = [f"all {blocks} blocks"]
    if settings.head is None:
        parts.append(f"{settings.head_fusion} of {heads} heads")
    else:
        parts.append(f"head {settings.head + 1} of {heads}")
    return ", ".join([*parts, rest(view)])


# What `caption` says in words of its own, or the picture shows.
SAID = {"head_fusion", "discard_ratio", "start_block", "end_block", "head", "query", "legacy"}


def rest(view: View) -> str:
    """All that is not blocks and heads."""
    parts = [f"discard ratio {view.settings.discard_ratio:g}"]
    parts += [
        f"{field.name} {value}"
        for field in fields(view.settings)
        if field.name not in SAID
        for value in [getattr(view.settings, field.name)]
        if value != getattr(DEFAULTS, field.name)
    ]
    if view.settings.query is not None:
        row, column = view.settings.query
        parts.append(f"from row {row}, column {column}")
    return ", ".join([*parts, *["arithmetic of vit-explain"] * view.settings.legacy])


def source(view: View) -> str:
    """Which model on which image, by their short names."""
    return one_line(f"{Path(view.model).name} on {Path(view.image).name}")
