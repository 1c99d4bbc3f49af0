"""The maps that are compared: methods with settings, and controls that no method may lose to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rollout.errors import UnsupportedNetworkError
from rollout.explanations.recording import Recording, record_prepared
from rollout.models.model import Model
from rollout.settings import DEFAULTS, METHODS, Settings, check_method

RANDOM, CENTRE, EDGES = "control: random", "control: centre", "control: edges"
ORACLE, RIVAL, ABSENT = "control: mask", "control: rival", "control: absent class"
CONTROLS = (RANDOM, CENTRE, EDGES, ORACLE, RIVAL, ABSENT)
BASELINE = ("gradient_rollout", DEFAULTS)
LIBRA = Settings(backward="libra")
WITH_LIBRA = ("gradient_rollout", "generic_relevance", "legrad")  # whose map it makes anew, too

_WORDS = {
    "head_fusion": "{}",
    "discard_ratio": "{:g}",
    "start_block": "from block {}",
    "end_block": "to block {}",
    "head": "head {}",
    "query": "patch {}",
    "legacy": "as published",
    "backward": "{}",
}


@dataclass(frozen=True)
class Candidate:
    """A method with settings, as a row of the comparison names it."""

    method: str
    settings: Settings = DEFAULTS

    def __post_init__(self) -> None:
        check_method(self.method)

    @property
    def gradients(self) -> bool:
        """Whether its map depends on the target."""
        return METHODS[self.method].gradients

    @property
    def setting(self) -> str:
        """What differs from the papers' settings, such as "max, 0.9"; "" where nothing does."""
        return ", ".join(_said(self.settings))


def _said(settings: Settings) -> Iterator[str]:
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value != getattr(DEFAULTS, field.name):
            shown = value + 1 if field.name == "start_block" else value  # blocks count from 1
            yield _WORDS.get(field.name, field.name + " {}").format(shown)


def find_candidates(
    model: Model, methods: Sequence[str | tuple[str, Settings]] | None = None
) -> list[Candidate]:
    """What to compare, each once; the baseline, gradient rollout, is always among it.

    Args:
        methods: names of METHODS, each with all of its `default_candidates`, and pairs of a name
            and settings; None is every default.

    Raises:
        ValueError: an unknown method, or a pair that makes no sense for the model. Of the defaults
            those are left out.
    """
    defaults = [one for one in default_candidates(model) if _refusal(model, one) is None]
    if methods is None:
        return defaults
    found = [Candidate(*BASELINE)]
    for one in methods:
        if isinstance(one, str):
            check_method(one)
            chosen = [known for known in defaults if known.method == one]
            found += chosen or [_checked(model, Candidate(one))]
        else:
            found.append(_checked(model, Candidate(*one)))
    return list(dict.fromkeys(found))


def _checked(model: Model, candidate: Candidate) -> Candidate:
    reason = _refusal(model, candidate)
    if reason is not None:
        raise ValueError(f"{candidate.method} does not go with {model.name}: {reason}") from reason
    return candidate


def _refusal(model: Model, candidate: Candidate) -> Exception | None:
    """Tried on a black image; None is a candidate that goes."""
    recording = record_prepared(model, model.black_image(), gradients=candidate.gradients)
    try:
        relevance(recording, candidate, None)
    except (ValueError, UnsupportedNetworkError) as error:
        return error
    return None


def default_candidates(model: Model) -> list[Candidate]:
    """Every method as its paper has it, vit-explain's tricks and faults, and what is said to help.

    The blocks that a setting leaves out depend on the model.
    """
    num_blocks = len(record_prepared(model, model.black_image(), gradients=False).record.blocks)
    tricks, published = Settings("max", 0.9), Settings("mean", 0.9, legacy=True)
    several = {
        "attention_rollout": [DEFAULTS, Settings(start_block=1), tricks],
        "gradient_rollout": [DEFAULTS, tricks, Settings(start_block=num_blocks // 2), published],
    }
    plain = [
        Candidate(method, settings)
        for method in METHODS
        for settings in several.get(method, [DEFAULTS])
        if settings.start_block < num_blocks
    ]
    return plain + [
        replace(one, settings=LIBRA)
        for one in plain
        if one.method in WITH_LIBRA and one.settings == DEFAULTS
    ]


def relevance(recording: Recording, candidate: Candidate, targets: Tensor | None) -> Tensor:
    """The map of a candidate, without a bar of its own: (batch, rows, columns)."""
    method, settings = candidate.method, candidate.settings
    return recording.relevance(method, targets, settings, progress=lambda share: None)


def random_map(like: Tensor, seeds: Sequence[int]) -> Tensor:
    """Noise in [0, 1): one seed for each image, so that a batch is its images one by one."""
    return torch.stack(
        [
            torch.rand(like.shape[1:], generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    )


def centre_map(like: Tensor) -> Tensor:
    """A hill in the middle, (batch, rows, columns)."""
    rows, columns = (torch.linspace(-1, 1, size) for size in like.shape[1:])
    return torch.exp(-2 * (rows[:, None] ** 2 + columns**2)).expand(like.shape)
