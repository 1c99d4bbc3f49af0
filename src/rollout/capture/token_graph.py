"""Which attention calls form the graph of tokens that rollout follows, or why none do."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from torch import nn

from rollout.capture.attention_call import AttentionCall
from rollout.capture.attention_mode import UNKNOWN, AttentionRecorder
from rollout.capture.blocks import Block, DifferentialAttention, ParallelAttention
from rollout.capture.kernels import kernel_out_of_sight
from rollout.errors import UnsupportedNetworkError

POOLING_MODULES = {"attn_pool", "attnpool", "global_pool", "head", "pool", "pooler"}


def token_graph(
    recorder: AttentionRecorder, network: nn.Module, batch: int
) -> tuple[tuple[Block, ...], tuple[AttentionCall, ...]]:
    """The blocks, first to last, and the calls by which the classifier reads their tokens.

    Raises:
        UnsupportedNetworkError: there is no single set of tokens through all blocks.
    """
    calls = recorder.calls
    trunk = [call for call in calls if not _pools(call)]
    while trunk and trunk[-1].shape[-2] == 1 and len(trunk[-1].shape) == 4:  # class attention
        trunk.pop()
    faults = list(_faults(recorder, trunk, network, batch))
    if faults:
        finding, kind = "; ".join(faults), type(network).__name__
        kernel = None if calls else kernel_out_of_sight(network)
        if kernel is not None:
            finding = f"its attention runs in {kernel}, out of sight of torch's functions"
            cure = "Choose another, such as attn_implementation='sdpa' of Hugging Face"
        else:
            cure = (
                "Rollout follows one set of tokens through all blocks; a method on feature maps, "
                "such as Grad-CAM (packages grad-cam and captum), does not need that"
            )
        raise UnsupportedNetworkError(f"{kind} cannot be rolled out: {finding}. {cure}", finding)
    pooling = tuple(call for call in calls if not any(call is one for one in trunk))
    return tuple(_blocks(trunk, network)), pooling


def _pools(call: AttentionCall) -> bool:
    return not POOLING_MODULES.isdisjoint(call.module.split("."))


def _faults(
    recorder: AttentionRecorder, trunk: list[AttentionCall], network: nn.Module, batch: int
) -> Iterator[str]:
    """What keeps the calls from being one graph of tokens, in words."""
    if not recorder.calls and recorder.unread:
        module, keys = recorder.unread[0]
        where = f"{module!r} takes" if module not in ("", UNKNOWN) else "it takes"
        yield (
            f"{where} a softmax over {keys} x {keys} scores as attention does, but no product of "
            "it with values, by @ or einsum, was seen"
        )
    elif not recorder.calls:
        yield (
            "it ran without any attention that could be recorded, that is, "
            "scaled_dot_product_attention or softmax(q k) v written out"
        )
    elif not trunk:
        yield "attention only pools what convolutions computed"
    if recorder.random is not None:
        drawing = repr(recorder.random) if recorder.random else "it"
        yield f"{drawing} draws random numbers, so that no two passes are the same"
    flat = [call for call in trunk if len(call.shape) == 3]
    trunk = [call for call in trunk if len(call.shape) > 3]
    windows = [call for call in trunk if len(call.shape) > 4 or call.shape[0] != batch]
    turned = [call for call in windows if _turned(call, batch, recorder.convolution_size)]
    rest = [call for call in trunk if not any(call is one for one in windows)]
    windows = [call for call in windows if not any(call is one for one in turned)]
    channels = [call for call in rest if _among_channels(call, recorder.convolution_size)]
    rest = [call for call in rest if not any(call is one for one in channels)]
    if flat:
        yield f"attention whose heads or windows share an axis with the images, of {_counts(flat)}"
    if turned:
        yield f"attention whose first axis is not that of the images, of {_counts(turned)}"
    if windows:
        yield f"windows of {_counts(windows)}"
    if channels:
        yield f"cross-covariance attention among channels in {_blocks_word(len(channels))}"
    projected = [call for call in rest if not call.compares and call.shape[-2] == call.shape[-1]]
    rest = [call for call in rest if not any(call is one for one in projected)]
    if projected:
        size = projected[0].shape[-1]
        yield (
            "linear attention, a softmax of projected tokens alone and not of queries times keys: "
            f"what it multiplies, {size} x {size}, is not known to be of tokens to tokens"
        )
    across = [call for call in rest if call.shape[-2] != call.shape[-1]]
    if across:
        query, key = across[0].shape[-2:]
        yield f"attention of {query} queries to {key} keys ({_blocks_word(len(across))})"
    sizes = [size for size, _ in groupby(call.shape[-1] for call in rest if call not in across)]
    if len(sizes) > 1:
        yield f"the number of tokens changes on the way: {', '.join(map(str, sizes[:6]))}"
    if any(0 < before < len(trunk) for before in recorder.convolved_after):
        yield "convolutions mix the tokens between the blocks"
    yield from _silent_blocks([*trunk, *flat], network)


def _among_channels(call: AttentionCall, grid_size: tuple[int, int] | None) -> bool:
    """The left factor multiplies (channels, tokens), not (tokens, channels)."""
    patches = grid_size[0] * grid_size[1] if grid_size else 0
    written_out = call.query is None and call.value.shape[-1] == patches > call.shape[-1]
    return call.among_channels or written_out


def _turned(call: AttentionCall, batch: int, grid_size: tuple[int, int] | None) -> bool:
    """(heads, batch, query, key): all patches are there, so that these are no windows."""
    patches = grid_size[0] * grid_size[1] if grid_size else None
    whole = patches is not None and call.shape[-1] >= patches and call.shape[-2] >= patches
    return whole and len(call.shape) == 4 and call.shape[1] == batch


def _counts(calls: Sequence[AttentionCall]) -> str:
    """Such as "49 tokens in 22 blocks, 16 tokens in 2 blocks"."""
    counted = Counter(call.shape[-1] for call in calls)
    return ", ".join(f"{size} tokens in {_blocks_word(count)}" for size, count in counted.items())


def _blocks_word(count: int) -> str:
    return f"{count} block" + "s" * (count > 1)


def _silent_blocks(trunk: Sequence[AttentionCall], network: nn.Module) -> Iterator[str]:
    """Blocks that stand among the recorded ones and showed no attention: a rollout would skip them.

    What stands before the first recorded block is a stem.
    """
    parts = [call.module.split(".") for call in trunk if call.module != UNKNOWN]
    heard = {".".join(part[:depth]) for part in parts for depth in range(len(part) + 1)}
    for name in sorted(heard):
        module = network.get_submodule(name)
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        children = list(module.named_children())
        seen = [f"{name}.{child}".lstrip(".") in heard for child, _ in children]
        if True not in seen:
            continue
        kinds = {type(child) for (_, child), known in zip(children, seen, strict=True) if known}
        first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
        silent = [
            child
            for place, (child, block) in enumerate(children)
            if not seen[place] and (first < place < last or place > last and type(block) in kinds)
        ]
        if silent:
            yield (
                f"{len(silent)} of the {len(children)} blocks in {name!r} show no attention, the "
                f"first being {silent[0]!r}"
            )


def _blocks(trunk: Sequence[AttentionCall], network: nn.Module) -> Iterator[Block]:
    """Calls that belong to one block are brought together."""
    for _, together in groupby(trunk, key=_block_name):
        calls = list(together)
        pairs = list(zip(calls[::2], calls[1::2], strict=False))
        if len(calls) > 1 and "attns" in calls[0].module.split("."):
            yield ParallelAttention(tuple(calls))
        elif 2 * len(pairs) == len(calls) and all(_same_value(*pair) for pair in pairs):
            for first, second in pairs:
                weight = _difference_weight(network.get_submodule(first.module))
                yield DifferentialAttention(first, second, weight)
        else:  # one call, or one module that several blocks share
            yield from calls


def _block_name(call: AttentionCall) -> str:
    """The block's part of a module's name; parallel attention lies side by side in `attns`."""
    return call.module.split(".attns.")[0]


def _same_value(first: AttentionCall, second: AttentionCall) -> bool:
    one, other = first.value, second.value
    same_storage = one.untyped_storage()._cdata == other.untyped_storage()._cdata
    return bool(same_storage and one.storage_offset() == other.storage_offset())


def _difference_weight(module: nn.Module) -> float:
    compute = getattr(module, "_compute_lambda", None)
    if compute is None:
        raise UnsupportedNetworkError(
            f"{type(module).__name__} attends twice to the same values and does not say how the "
            "two are combined; rollout needs one attention per block"
        )
    weight = compute().detach()
    return float("nan") if weight.is_meta else float(weight)
