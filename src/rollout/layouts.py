"""Read off a network where its tokens stand and which of them its classifier reads."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rollout.calls import AttentionCall
from rollout.fusion import HeadFusion
from rollout.readouts import attention_readout, maximum_readout
from rollout.record import AttentionRecord, Gradients
from rollout.recorder import UnsupportedNetworkError
from rollout.sequences import BlockSequence
from rollout.tokens import Pooling, TokenLayout

MOST_PREFIX_TOKENS = 16  # timm's go to 10; beyond, it is the grid that was misread


def read_layout(
    network: nn.Module,
    record: AttentionRecord,
    image_size: tuple[int, int],
    *,
    pooling: Pooling | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
) -> TokenLayout:
    """The token layout of one pass, held against the tokens that the network really used.

    Args:
        record: of images of `image_size`, (height, width).
        pooling: what `find_pooling` said; None asks it.
        grid_size, num_prefix_tokens: what the user knows better; None reads it off.
    """
    grid = grid_size or _grid_size(network, record, image_size)
    found = pooling or find_pooling(network, record)
    declared = num_prefix_tokens if num_prefix_tokens is not None else _declared_prefix(network)
    if found == "class_attention":
        declared = 0  # its class token joins after the blocks
    prefix = record.num_tokens - grid[0] * grid[1] if grid else -1
    expected = range(MOST_PREFIX_TOKENS + 1) if declared is None else (declared,)
    if grid is None or prefix not in expected:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} has {record.num_tokens} tokens, {_misfit(grid, declared)}; "
            "its layout cannot be read off. Give wrap_model grid_size=(rows, columns) and "
            "num_prefix_tokens="
        )
    if not prefix and found in (None, "all", "token_avg"):
        found = "avg"
    return TokenLayout(grid, prefix, found or "token")


def _misfit(grid_size: tuple[int, int] | None, num_prefix_tokens: int | None) -> str:
    if grid_size is None:
        return "and nothing says how its patches are laid out"
    prefix = "a few" if num_prefix_tokens is None else num_prefix_tokens
    return "which is not {} prefix tokens and {} x {} patches".format(prefix, *grid_size)


def find_pooling(network: nn.Module, record: AttentionRecord) -> Pooling | None:
    """Which tokens the classifier reads: by the network's word, else by where gradients arrive.

    Args:
        record: with gradients, where the network says nothing.
    """
    if record.pooling and _is_read(record):
        keys = {call.shape[-1] for call in record.pooling}
        return "class_attention" if keys == {record.num_tokens + 1} else "map"
    declared = declared_pooling(network)
    return declared or (measured_pooling(record) if record.pooled else None)


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
    return _fitting(norms, record) if norms.any() else None


def _arrivals(
    record: AttentionRecord, calls: Sequence[AttentionCall]
) -> tuple[Tensor | None, ...] | None:
    """What of the first image's answer arrives at each call; None where that was not recorded."""
    edges = [call.edge for call in calls if call.edge is not None]
    if record.answer is None or record.answer.is_meta or not edges:
        return None
    signs = torch.linspace(-1, 1, record.answer.shape[-1], device=record.answer.device)
    total = (record.answer[0] * signs).sum()
    return torch.autograd.grad(total, edges, retain_graph=True, allow_unused=True)


def _by_query(call: AttentionCall, arrived: Tensor) -> Tensor:
    """The first image's gradient at each of a call's outputs, (queries,)."""
    # Some networks lay the heads out as (batch * heads, query, channels).
    return arrived.reshape(*call.shape[:-1], -1)[0].norm(dim=-1).norm(dim=0)


def _fitting(norms: Tensor, record: AttentionRecord) -> Pooling:
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


def _grid_size(
    network: nn.Module, record: AttentionRecord, image_size: tuple[int, int]
) -> tuple[int, int] | None:
    """What the last convolution before the blocks made, or the image cut into patches."""
    if record.convolution_size is not None:
        return record.convolution_size
    for module in network.modules():  # patches that a linear layer embeds
        patch_size: Any = getattr(module, "patch_size", None)
        if isinstance(patch_size, int):
            patch_size = (patch_size, patch_size)
        if isinstance(patch_size, tuple) and len(patch_size) == 2:
            return image_size[0] // patch_size[0], image_size[1] // patch_size[1]
    return None


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
