"""What a picture must say beside its colours, to be read and to be made again."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from rollout.explanations.targets import Chosen
from rollout.explorer.session import Session
from rollout.explorer.view import View
from rollout.maths.token_layout import Pooling
from rollout.models.outputs import as_text
from rollout.names import one_line
from rollout.settings import DEFAULTS, METHODS, titled

# What a network reads its answer from, in words.
READOUTS: Mapping[Pooling, str] = {
    "token": "the class token",
    "distilled": "class and distillation token",
    "avg": "the mean of the patches",
    "all": "the mean of all tokens",
    "token_avg": "class token and mean patch",
    "max": "the maximum of the patches",
    "avgmax": "the mean and maximum of the patches",
    "map": "the attention pool",
    "class_attention": "the class token",
}
ENDS = {
    "auto": "",
    "max": "colours end at the maximum",
    "percentile": "colours end at the 99th percentile",
    "log": "logarithmic colours",
}


def caption(session: Session, view: View) -> str:
    """Blocks, heads and the rest."""
    blocks, heads = session.num_blocks, session.num_heads
    first, last = view.settings.start_block + 1, view.settings.end_block or blocks
    total = f" of {blocks}" if (first, last) != (1, blocks) or first == last else ""
    fusion = f" of {heads} heads" if view.settings.head is None else f" of {heads}"
    whole = f"all {blocks} blocks" if not total else block_words(session, view, total)
    heads_said = head_words(view).removesuffix(" of heads") + fusion
    return ", ".join([whole, heads_said, rest(view)])


def block_words(session: Session, view: View, total: str = "") -> str:
    first, last = view.settings.start_block + 1, view.settings.end_block or session.num_blocks
    if first == last:
        return f"block {first}{total} alone"
    if last - first + 1 == session.num_blocks:
        return "all blocks"
    return f"blocks {first} to {last}{total}"


def head_words(view: View) -> str:
    head = view.settings.head
    return f"{view.settings.head_fusion} of heads" if head is None else f"head {head + 1}"


# What `caption` says in words of its own, or the picture shows.
SAID = {"head_fusion", "discard_ratio", "start_block", "end_block", "head", "query", "legacy"}


def rest(view: View) -> str:
    """All that is not blocks and heads."""
    return ", ".join(part for part in [*knob_words(view).values(), ENDS[view.scale]] if part)


def knob_words(view: View) -> dict[str, str]:
    """The settings that are not blocks and heads, by name; "" is the default."""
    settings, query = view.settings, view.settings.query
    words = {"discard_ratio": f"discard ratio {settings.discard_ratio:g}"}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name not in SAID:
            default = value == getattr(DEFAULTS, field.name)
            words[field.name] = "" if default else f"{field.name} {value}"
    words["query"] = "" if query is None else "from row {}, column {}".format(*query)
    return words | {"legacy": "arithmetic of vit-explain" * settings.legacy}


def source(view: View) -> str:
    """Which model on which image, by their short names."""
    return one_line(f"{Path(view.model).name} on {Path(view.image).name}")


def unit_of(session: Session, view: View) -> str:
    """What a value of the map means: from what the classifier reads, or from a traced patch."""
    if view.settings.legacy:
        return "value as vit-explain computes it"
    traced = view.settings.query is not None
    read = "the patch" if traced else READOUTS[session.recording.layout.pooling]
    return METHODS[view.method].unit.replace("the readout", read)


def map_title(session: Session, view: View, target: Chosen | None) -> str:
    """The method, and what it follows with the network's answer."""
    method = titled(view.method, view.settings)
    if not METHODS[view.method].gradients:
        return method
    if target is None:
        return f"{method}: {one_line(view.score_name)}" if view.score_name else method
    if isinstance(target, frozenset):
        return f"{method}: {session.short_label(target)}"
    answer = as_text(session.probabilities[target], session.logits[target])
    return f"{method}: {session.short_label(target)} ({answer})"
