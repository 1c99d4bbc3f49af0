"""Which of a file's tensors are a network's: the table, the prefix before its names, the rest."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os.path import commonprefix

from torch import Tensor

from rollout.errors import shown
from rollout.models.checkpoints import Checkpoint, Table

# Names by which timm's own conversions know files of other libraries: they stay as they are.
_CONVERTED_BY_TIMM = (
    "visual.class_embedding",  # CLIP of OpenAI
    "visual.conv1.weight",  # Perception Encoder
    "preprocessor.patchifier.proj.weight",  # AIMv2
    "radio_model.model.patch_generator.embedder.weight",  # RADIO
    "beit3.encoder.layers.0.self_attn_layer_norm.A.weight",
)


# Parts of training that are no part of the network: the decoder of a masked autoencoder, tokens
# that stand for masked patches, heads of self-distillation, the index that BEiT can compute.
TRAINING_ONLY = re.compile(
    r"decoder_(pos_embed|embed|norm|pred|blocks)\b.*|mask_token|lm_head\..*|rope\.periods"
    r"|(dino_|ibot_)?head\.(mlp|last_layer|prototypes)\..*|(dino|ibot)_head\..*"
    r"|.*relative_position_index|.*num_batches_tracked|.*\.bias_mask"
)


_AVERAGED = re.compile(r"(^|[._])(ema|averaged?|swa|teacher|shadow|target_encoder)([._]|$)")


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network.

    Attributes:
        name: where they stand in the file, such as "state_dict_ema" or "model.teacher.backbone".
        others: the names of other networks in the file that would fit as well.
        outside: names in the same table that do not stand behind the prefix.
    """

    name: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        return bool(_AVERAGED.search(self.name))


def find_state_dict(
    checkpoint: Checkpoint, expected: Collection[str], weights: str | None = None
) -> StateDict:
    """The tensors in the file whose names, behind a common prefix, are those of the network.

    Averaged weights (of an exponential moving average, a teacher) go before raw ones, as in timm.

    Args:
        expected: the names of the network's own tensors.
        weights: "averaged" or "raw", or the name of one of several.

    Raises:
        ValueError: the file has none of this kind or name.
    """
    found = _candidates(checkpoint.tables, frozenset(expected))
    if weights not in (None, "averaged", "raw"):
        chosen = [state for state in found if state.name == weights]
    else:
        chosen = [state for state in found if state.averaged is (weights == "averaged")]
        chosen = chosen if weights else sorted(found, key=lambda state: not state.averaged)
    if not chosen:
        held = " and ".join(repr(state.name) if state.name else "one table" for state in found)
        raise ValueError(
            f"{checkpoint.path} has no weights={shown(weights)}; it holds {held}: take one of "
            "these, or leave weights out"
        )
    others = tuple(state.name for state in found if state is not chosen[0])
    return StateDict(chosen[0].name, chosen[0].tensors, others, chosen[0].outside)


def _candidates(tables: Mapping[str, Table], expected: frozenset[str]) -> list[StateDict]:
    """Tables behind a prefix that fit about as well as the one that fits best."""
    hits = {
        (path, prefix): count
        for path, table in tables.items()
        for prefix, count in _hits(table, expected).items()
    }
    if not hits:  # foreign names: whole tables, the largest first
        largest = max(map(len, tables.values()))
        hits = {
            (path, _wrapper(table)): len(table)
            for path, table in tables.items()
            if len(table) >= 0.9 * largest
        }
    best = max(hits.values())
    return [
        _behind(prefix, path, tables[path])
        for (path, prefix), count in hits.items()
        if count >= 0.9 * best  # an average may lack what is not averaged
    ]


def _hits(table: Table, expected: frozenset[str]) -> Counter[str]:
    """How many names of the network stand behind each prefix of a table."""
    for name in table:
        for known in _CONVERTED_BY_TIMM:
            if name.endswith(known):
                return Counter({name.removesuffix(known): len(table)})
    hits: Counter[str] = Counter()
    for name in table:
        for end in [0, *(match.end() for match in re.finditer(r"\.", name))]:
            hits[name[:end]] += name[end:] in expected
    return +hits


def _wrapper(table: Table) -> str:
    """What stands, up to a dot, before every name of a table."""
    common = commonprefix(list(table))
    return common[: common.rfind(".") + 1]


def _behind(prefix: str, path: str, table: Table) -> StateDict:
    tensors = {name[len(prefix) :]: table[name] for name in table if name.startswith(prefix)}
    outside = tuple(name for name in table if not name.startswith(prefix))
    return StateDict(".".join(filter(None, [path, prefix.rstrip(".")])), tensors, outside=outside)
