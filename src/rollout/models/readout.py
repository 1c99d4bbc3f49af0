"""Which output tokens the classifier reads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rollout.capture.attention_call import AttentionCall
from rollout.capture.attention_record import AttentionRecord, Gradients
from rollout.errors import UnsupportedNetworkError
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.pooling import attention_readout, maximum_readout
from rollout.maths.token_layout import Pooling, TokenLayout
from rollout.models.described import described
from rollout.settings import HeadFusion


def find_pooling(network: nn.Module, record: AttentionRecord) -> Pooling | None:
    """Which tokens the classifier reads: by the network's word, else by where gradients arrive.

    Args:
        record: with gradients, where the network says nothing.
    """
    if record.pooling and _is_read(record):
        keys = {call.shape[-1] for call in record.pooling}
        return "class_attention" if keys == {record.num_tokens + 1} else "map"
    declared = declared_pooling(network)
    measured = measured_pooling(record) if record.pooled and declared is None else None
    return declared or measured or _declared_inside(network)


def _declared_inside(network: nn.Module) -> Pooling | None:
    """By the network inside another, where no gradient says better."""
    inner = described(network)
    return None if inner is None else declared_pooling(inner)


def _is_read(record: AttentionRecord) -> bool:
    """Whether the answer depends on what attention pools; a network may make that and not use it.

    Raises:
        UnsupportedNetworkError: it reads more than the first of several pooled vectors.
    """
    arrivals = _arrivals(record, record.pooling)
    if arrivals is None:
        return True
    last, arrived = record.pooling[-1], arrivals[-1]
    queries = last.shape[-2]
    if arrived is not None and queries not in (1, record.num_tokens):
        if _by_query(last, arrived)[1:].any():
            raise UnsupportedNetworkError(
                f"{last.module} pools the tokens into {queries} vectors, and more than the first "
                "is read; there is no one distribution over the tokens that the answer reads"
            )
    return any(one is not None for one in arrivals)


def measured_pooling(record: AttentionRecord) -> Pooling | None:
    """The pooling that fits the tokens from which the answer's gradient arrives at the last block.

    After the last attention each token goes its own way until they are pooled. None where no
    gradient arrives, as from a classifier that is still zero, or was not recorded.
    """
    last = record.blocks[-1].calls[0]
    arrivals = _arrivals(record, [last])
    if arrivals is None or arrivals[0] is None:
        return None
    norms = _by_query(last, arrivals[0])
    return _pooling_from(norms, record) if norms.any() else None


def _arrivals(
    record: AttentionRecord, calls: Sequence[AttentionCall]
) -> tuple[Tensor | None, ...] | None:
    """What of the first image's answer arrives at each call; None where that was not recorded."""
    edges = [call.edge for call in calls if call.edge is not None]
    logits = record.logits_graph
    if logits is None or logits.is_meta or not logits.requires_grad or not edges:
        return None
    signs = torch.linspace(-1, 1, logits.shape[-1], device=logits.device)
    total = (logits[0] * signs).sum()
    return torch.autograd.grad(total, edges, retain_graph=True, allow_unused=True)


def _by_query(call: AttentionCall, arrived: Tensor) -> Tensor:
    """The first image's gradient at each of a call's outputs, (queries,)."""
    # Some networks lay the heads out as (batch * heads, query, channels).
    return arrived.reshape(*call.shape[:-1], -1)[0].norm(dim=-1).norm(dim=0)


def _pooling_from(norms: Tensor, record: AttentionRecord) -> Pooling:
    """The pooling under which gradients of these sizes arrive at the tokens, (tokens,)."""
    if record.maxima is not None:
        return "max"
    read = norms > 0
    if not read[2:].any():
        return "distilled" if read[1] else "token"
    if not read[0]:
        return "avg"
    # One token out of an average of N moves the answer as much as any other; one that is read
    # beside the average, N times as much. The limit lies half-way, on a logarithmic scale.
    apart = norms[0] > norms[1:][read[1:]].median() * len(norms) ** 0.5
    has_prefix = record.convolution_size is None or len(norms) > _area(record.convolution_size)
    if not has_prefix:
        return "avg"
    return "token_avg" if apart else "all"


def read_readout(
    layout: TokenLayout,
    record: AttentionRecord,
    gradients: Gradients | None = None,
    head_fusion: HeadFusion = "mean",
) -> Tensor:
    """What the classifier reads of each output token: (tokens,) or (batch, tokens), sums to 1.

    Args:
        gradients: with them, attention that pools the tokens is read as in gradient rollout.
    """
    if layout.pooling in ("map", "class_attention"):
        attentions: BlockSequence = record.pooling_attentions
        pooled = gradients.pooling if gradients else None
        return attention_readout(layout, attentions, pooled, head_fusion)
    if layout.pooling in ("max", "avgmax"):
        if record.maxima is None:
            raise UnsupportedNetworkError("the network took no maximum over its tokens")
        return maximum_readout(layout, record.maxima)
    return layout.readout


def check_own_scores(name: str, layout: TokenLayout) -> None:
    """Refuse a block's own score where the tokens' mean is not what the classifier could read."""
    if layout.pooling in ("map", "class_attention"):
        raise UnsupportedNetworkError(
            f"{name} pools its tokens by attention, so that a block's own score is not that of "
            "their mean, which legrad_per_block takes; use legrad, which follows the final score"
        )


def _declared_prefix(network: nn.Module) -> int | None:
    declared = getattr(network, "num_prefix_tokens", None)
    return declared if isinstance(declared, int) else None


def declared_pooling(network: nn.Module) -> Pooling | None:
    """By timm's attributes; None where the network has none."""
    pooling, prefix = getattr(network, "global_pool", None), _declared_prefix(network)
    if not isinstance(pooling, str) or prefix is None:
        return None
    if hasattr(network, "head_dist"):  # the mean of two classifiers
        return "distilled"
    if pooling == "avg":
        return "all" if getattr(network, "pool_include_prefix", False) and prefix else "avg"
    if pooling in ("token", "max", "avgmax"):
        return pooling  # type: ignore[return-value]
    return "token" if prefix else "avg"  # unpooled tokens


def _area(grid_size: tuple[int, int]) -> int:
    return grid_size[0] * grid_size[1]
