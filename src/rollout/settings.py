"""What can be chosen: methods, head fusions, ratio, blocks, head, query. Imports nothing heavy."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from rollout.errors import shown

HeadFusion = Literal["mean", "max", "min"]
HEAD_FUSIONS: tuple[HeadFusion, ...] = get_args(HeadFusion)
Backward = Literal["plain", "libra"]
BACKWARDS: tuple[Backward, ...] = get_args(Backward)


@dataclass(frozen=True)
class Settings:
    """The knobs of a map; the defaults are those of the papers.

    Attributes:
        head_fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each block's lowest fused attention to leave out, in [0, 1).
        start_block, end_block: the blocks that count, as in a slice: the first, and the one after
            the last; None is the end of the network.
        head: one head alone, None for all.
        query: the patch (row, column) whose tokens are traced back, None for what the classifier
            reads.
        legacy: the arithmetic of vit-explain as it was published, faults included.
        backward: how gradients are taken: "plain" is the derivative, "libra" the rules of LibraGrad
            by which relevance is conserved; see `capture.backward_rules`.
    """

    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.0
    start_block: int = 0
    end_block: int | None = None
    head: int | None = None
    query: tuple[int, int] | None = None
    legacy: bool = False
    backward: Backward = "plain"

    def __post_init__(self) -> None:
        check_head_fusion(self.head_fusion)
        check_discard_ratio(self.discard_ratio)
        check_backward(self.backward)
        check_flag("legacy", self.legacy)
        if self.legacy and self.backward != "plain":
            raise ValueError(
                f"vit-explain has the plain backward pass, not {shown(self.backward)}; use "
                "legacy=False or backward='plain'"
            )
        for name in ("discard_ratio", "start_block", "end_block", "head", "query"):
            value = _plain(getattr(self, name))
            if not _is_hashable(value):  # settings are keys of the maps that are kept
                raise ValueError(f"{name} must be numbers, got {shown(value)}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Method:
    """What is said of a method; `explanations.methods` has its arithmetic.

    Attributes:
        title, unit: for people; the unit is what a value of the map means.
        gradients: whether it needs gradients, and so depends on the target.
        legacy: whether vit-explain has it, so that its published arithmetic can be asked for.
        traces: whether it starts from some tokens, so that a patch can be asked for (`query`).
    """

    title: str
    unit: str
    gradients: bool = False
    legacy: bool = False
    traces: bool = True


METHODS: Mapping[str, Method] = {
    "raw_attention": Method("raw attention", "attention of the last block"),
    "attention_rollout": Method("attention rollout", "share of the readout's content", legacy=True),
    "attention_flow": Method("attention flow", "maximum flow from the readout"),
    "gradient_rollout": Method(
        "gradient rollout", "share of the readout's evidence", gradients=True, legacy=True
    ),
    "first_order": Method("first order", "evidence for the readout, block by block", True),
    "generic_relevance": Method("generic relevance", "relevance for the readout", True),
    "attention_gradcam": Method("attention Grad-CAM", "weighted attention of the last block", True),
    "agcam": Method("AGCAM", "gradient at the readout, gated by the scores", True),
    "legrad": Method("LeGrad", "mean positive gradient", True, traces=False),
    "legrad_per_block": Method(
        "LeGrad per block", "mean positive gradient of each block's own score", True, traces=False
    ),
    "gradient_flow": Method("gradient flow", "maximum flow of evidence from the readout", True),
}


def titled(method: str, settings: Settings) -> str:
    """Such as "gradient rollout", or "gradient rollout, libra"."""
    title = METHODS[method].title
    return title if settings.backward == "plain" else f"{title}, {settings.backward}"


def check_method(method: str) -> None:
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {shown(method)}")


def check_query(method: str, query: object) -> None:
    if query is not None and not METHODS[method].traces:
        raise ValueError(
            f"{method} is the mean over all queries, so no patch can be traced, got query={query}; "
            "use query=None, or a method such as gradient_rollout"
        )


def check_head_fusion(head_fusion: str) -> None:
    if not isinstance(head_fusion, str) or head_fusion not in HEAD_FUSIONS:
        raise ValueError(
            f"head_fusion must be one of {sorted(HEAD_FUSIONS)}, got {shown(head_fusion)}"
        )


def check_discard_ratio(discard_ratio: float) -> None:
    number = isinstance(discard_ratio, Real) and not isinstance(discard_ratio, bool)
    if not number or not 0 <= discard_ratio < 1:
        raise ValueError(f"discard_ratio must be a number in [0, 1), got {shown(discard_ratio)}")


def check_backward(backward: str, method: str | None = None) -> None:
    """Also that the method, if one is given, has gradients that it could change."""
    if not isinstance(backward, str) or backward not in BACKWARDS:
        raise ValueError(f"backward must be one of {', '.join(BACKWARDS)}; got {shown(backward)}")
    if backward != "plain" and method is not None and not METHODS[method].gradients:
        raise ValueError(
            f"{method} takes no gradients, so backward={backward!r} would change nothing; use "
            "backward='plain', or a method with gradients such as gradient_rollout"
        )


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, so that settings read the same in code, JSON and a table."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    numpy = isinstance(value, Real) and hasattr(value, "item")
    return value.item() if numpy else value


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def check_list(name: str, values: Any) -> None:
    """Refuse what does not hold several, one after the other, and what is empty."""
    several = isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping)
    if not several or getattr(values, "ndim", 1) != 1:  # of arrays and tensors
        raise ValueError(f"{name} must be a list, got {shown(values)}; write [{shown(values)}]")
    if not len(values):
        raise ValueError(f"{name} is empty; give at least one")


def check_count(name: str, value: Any) -> int:
    """A number of things, 1 or more, as Python's own: numpy's of few bits overflow."""
    if not is_index(value) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on, got {shown(value)}")
    return int(value)


def is_index(value: object) -> bool:
    """A whole number, also numpy's; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_start_block(start_block: int, num_blocks: int) -> None:
    """A first block that leaves none is an error."""
    if not is_index(start_block) or not 0 <= start_block < num_blocks:
        raise ValueError(
            f"start_block must be in [0, {num_blocks - 1}] for {num_blocks} blocks, got "
            f"{shown(start_block)}"
        )


DEFAULTS = Settings()
