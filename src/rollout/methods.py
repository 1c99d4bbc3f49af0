"""The table of methods, and the settings that all of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rollout.flow import attention_flow
from rollout.fusion import (
    HeadFusion,
    check_discard_ratio,
    check_head_fusion,
    discard_lowest,
    fuse_heads,
)
from rollout.published import (
    published_attention_rollout,
    published_gradient_rollout,
    through_softmax,
)
from rollout.rollout import attention_rollout, gradient_rollout

Attentions = Sequence[Tensor]


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
    """

    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.0
    start_block: int = 0
    end_block: int | None = None
    head: int | None = None
    query: tuple[int, int] | None = None
    legacy: bool = False

    def __post_init__(self) -> None:
        check_head_fusion(self.head_fusion)
        check_discard_ratio(self.discard_ratio)


Compute = Callable[[Attentions, Attentions | None, Tensor, Settings], Tensor]


@dataclass(frozen=True)
class Method:
    """How a map is computed.

    Attributes:
        compute: (attentions, gradients or None, readout, settings) -> (batch, tokens).
        gradients: whether it needs gradients, and so depends on the target.
        title, unit: for people; the unit is what a value of the map means.
        published: the same with the arithmetic of vit-explain, for one class token and a square
            grid; None where vit-explain has no such method.
    """

    compute: Compute
    gradients: bool
    title: str
    unit: str
    published: Compute | None = None


def _raw_attention(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    """What the readout attends to in the last block alone: no residual, no depth."""
    fused = fuse_heads(attentions[-1], settings.head_fusion)
    return _read(readout, discard_lowest(fused, settings.discard_ratio))


def _attention_rollout(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    return attention_rollout(
        attentions,
        head_fusion=settings.head_fusion,
        discard_ratio=settings.discard_ratio,
        readout=readout,
    )


def _gradient_rollout(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    assert gradients is not None
    return gradient_rollout(
        attentions,
        gradients,
        head_fusion=settings.head_fusion,
        discard_ratio=settings.discard_ratio,
        readout=readout,
    )


def _attention_flow(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    """A bar of progress over the tokens, for maps that take more than a second."""
    batch, _, tokens, _ = attentions[0].shape
    total = batch * tokens
    with tqdm(total=total, desc="attention flow", unit="token", delay=1, leave=False) as bar:
        flow = attention_flow(
            attentions,
            head_fusion=settings.head_fusion,
            discard_ratio=settings.discard_ratio,
            readout=readout,
            progress=bar.update,
        )
    return flow.values


def _published_rollout(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    rollout = published_attention_rollout(attentions, settings.head_fusion, settings.discard_ratio)
    return _read(readout, rollout)


def _published_gradient_rollout(
    attentions: Attentions, gradients: Attentions | None, readout: Tensor, settings: Settings
) -> Tensor:
    assert gradients is not None
    if settings.head_fusion != "mean":
        raise ValueError(
            "the published gradient rollout knows only head_fusion='mean', got "
            f"{settings.head_fusion!r} with legacy=True; use legacy=False"
        )
    pairs = zip(attentions, gradients, strict=True)
    scores = [through_softmax(attention, gradient) for attention, gradient in pairs]
    return _read(readout, published_gradient_rollout(attentions, scores, settings.discard_ratio))


def _read(readout: Tensor, matrix: Tensor) -> Tensor:
    """Rows of (batch, query, key), weighted by a readout of (tokens,) or (batch, tokens)."""
    weights = readout.to(matrix).expand(len(matrix), -1)
    return torch.einsum("bq,bqk->bk", weights, matrix)


METHODS = {
    "raw_attention": Method(_raw_attention, False, "raw attention", "attention of the last block"),
    "attention_rollout": Method(
        _attention_rollout,
        False,
        "attention rollout",
        "share of the readout's content",
        _published_rollout,
    ),
    "attention_flow": Method(
        _attention_flow, False, "attention flow", "maximum flow from the readout"
    ),
    "gradient_rollout": Method(
        _gradient_rollout,
        True,
        "gradient rollout",
        "share of the readout's evidence",
        _published_gradient_rollout,
    ),
}


def check_method(method: str) -> None:
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
