"""Read off a network where its tokens stand, and hold it against the tokens that it really used."""

from torch import nn

from rollout.hooks import UnsupportedNetworkError
from rollout.record import AttentionRecord
from rollout.tokens import TokenLayout


def read_layout(network: nn.Module, record: AttentionRecord) -> TokenLayout:
    """The token layout as the network says it, held against the tokens that it really used."""
    prefix = getattr(network, "num_prefix_tokens", 1)
    grid_size = record.convolution_size
    if grid_size is None or prefix + grid_size[0] * grid_size[1] != record.num_tokens:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} has {record.num_tokens} tokens, which is not {prefix} "
            f"prefix tokens and a patch grid of {grid_size}; its layout cannot be read off"
        )
    return TokenLayout(grid_size, prefix, _readout_tokens(network, prefix, record.num_tokens))


def _readout_tokens(network: nn.Module, prefix: int, tokens: int) -> tuple[int, ...]:
    pooling = getattr(network, "global_pool", "token" if prefix else "avg")
    if hasattr(network, "head_dist"):  # distilled: the mean of two classifiers
        return 0, 1
    if pooling == "avg":
        return tuple(range(0 if getattr(network, "pool_include_prefix", False) else prefix, tokens))
    if pooling == "token":
        return (0,)
    raise UnsupportedNetworkError(
        f"{type(network).__name__} pools its tokens by {pooling!r}, which does not say how much it "
        "reads of each; a class token and average pooling are supported"
    )
