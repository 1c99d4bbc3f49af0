"""What the network would answer if it ended after each block, and how that depends on the block.

Every block is run on what the blocks below it made of the image, as always, but no gradient goes
back from one to another. After the last, the tokens of each block are replaced by their mean, and
go through the network's own norm, pooling and classifier side by side: whatever is read of equal
tokens, it is their mean. That is one pass, and nothing of the network is taken apart.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord, Gradients, Score
from rollout.capture.forward_pass import record_attention
from rollout.capture.observation import bare
from rollout.errors import UnsupportedNetworkError
from rollout.settings import Backward


def own_score_gradients(
    network: nn.Module,
    images: Tensor,
    record: AttentionRecord,
    target: Tensor | None,
    score: Score | None = None,
    backward: Backward = "plain",
) -> Gradients:
    """d(score of a block's own tokens) / d(attention of that block), of each block.

    Args:
        record: of these images; its blocks say which modules they are.
        target: as for `AttentionRecord.backward`, of each image: (batch,) or bool (batch, classes).
        score: instead of a target; a function of what the network returned, with a row for each
            image after the first block, then after the second, and so on: -> (blocks * batch,).
        backward: as for `record_attention`.

    Raises:
        UnsupportedNetworkError: a block's tokens cannot be had, or not be read by themselves.
    """
    own = own_record(network, images, record, backward)
    if target is not None:
        target = target.repeat(len(record.blocks), *[1] * (target.dim() - 1))
    return own.backward(target, score=score, retain_graph=False)


def own_record(
    network: nn.Module, images: Tensor, record: AttentionRecord, backward: Backward = "plain"
) -> AttentionRecord:
    """The pass itself; its logits have a row for each image after the first block, and so on."""
    network = bare(network)
    names = _block_modules(network, record)
    shape = len(images), record.num_tokens
    with _each_by_itself([network.get_submodule(name) for name in names], shape):
        try:
            own = record_attention(network, images, backward=backward)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UnsupportedNetworkError(_refused(network, f"({error})")) from error
    if len(own.logits) != len(names) * len(images):
        raise UnsupportedNetworkError(_refused(network, "and reads the blocks in another way"))
    return own


@contextmanager
def _each_by_itself(blocks: Sequence[nn.Module], shape: tuple[int, int]) -> Iterator[None]:
    """Blocks whose outputs carry no gradient on, and the last one's are the means of all."""
    means: list[Tensor] = []  # (batch, 1, width) each
    mine = threading.get_ident()

    def hook(block: nn.Module, _: Any, output: Any) -> Any:
        if threading.get_ident() != mine:
            return output
        tokens = output[0] if isinstance(output, tuple) else output
        if not isinstance(tokens, Tensor) or tokens.shape[:-1] != shape:
            raise RuntimeError(f"a block returns no tokens of (batch, tokens) = {shape}")
        if len(means) == len(blocks) or block is not blocks[len(means)]:
            raise RuntimeError("blocks run more than once, or in another order")
        means.append(tokens.mean(dim=1, keepdim=True))
        after = tokens.detach()
        if block is blocks[-1]:
            after = torch.cat(means).repeat(1, shape[1], 1)
        return (after, *output[1:]) if isinstance(output, tuple) else after

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(hook).remove)
        yield


def _block_modules(network: nn.Module, record: AttentionRecord) -> list[str]:
    """Of each block the outermost module that holds none of the others."""
    paths = [_common([call.module for call in block.calls]) for block in record.blocks]
    names = []
    for place, path in enumerate(paths):
        others = [other for number, other in enumerate(paths) if number != place]
        outer = (path[:size] for size in range(1, len(path) + 1))
        alone = (name for name in outer if all(one[: len(name)] != name for one in others))
        if len(paths) == 1:
            alone = (name for name in alone if _in_a_row(network, name))
        name = next(alone, None)
        if name is None:
            raise UnsupportedNetworkError(_refused(network, "and has no module for each block"))
        names.append(".".join(name))
    return names


def _common(modules: Sequence[str]) -> list[str]:
    """The path that the modules of one block share."""
    paths = [module.split(".") for module in modules]
    size = 0
    while all(len(path) > size and path[size] == paths[0][size] for path in paths):
        size += 1
    return paths[0][:size]


def _in_a_row(network: nn.Module, path: Sequence[str]) -> bool:
    parent = network.get_submodule(".".join(path[:-1]))
    return isinstance(parent, nn.Sequential | nn.ModuleList)


def _refused(network: nn.Module, why: str) -> str:
    return (
        f"{type(network).__name__} does not let each block's own tokens be classified {why}, which "
        "legrad_per_block needs; use legrad, which follows the final score"
    )
