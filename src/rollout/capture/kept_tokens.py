"""A network's answer to some of an image's patches: the others are dropped, not painted over.

As in training with dropped patches (Li et al., 2023), the tokens of the others are gone before the
first block; position embeddings are added before that, so the rest stands where it stood.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import _logits as read_logits
from rollout.capture.network_state import changed, frozen, signals_wait
from rollout.capture.observation import bare
from rollout.errors import UnsupportedNetworkError


def block_names(network: nn.Module, record: AttentionRecord) -> list[str]:
    """The name of each block's module, first block first.

    It is the member of the list of blocks that the attention lies in.

    Raises:
        UnsupportedNetworkError: the blocks do not stand in one list.
    """
    modules = dict(bare(network).named_modules())
    names = [_in_a_list(block.module, modules, len(record.blocks)) for block in record.blocks]
    found = [name for name in dict.fromkeys(names) if name is not None]
    if len(found) != len(record.blocks):
        raise UnsupportedNetworkError(
            f"{type(network).__name__} keeps its {len(record.blocks)} blocks in no list of modules,"
            " so where a block begins is not known"
        )
    return found


def _in_a_list(name: str, modules: dict[str, nn.Module], least: int) -> str | None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        holder = modules.get(".".join(parts[: end - 1]))
        if isinstance(holder, nn.ModuleList | nn.Sequential) and len(holder) >= least:
            return ".".join(parts[:end])
    return None


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """The logits of images, (batch, classes), unrecorded; the network is left as it was."""
    network = bare(network)
    with torch.inference_mode(), signals_wait(), changed(frozen(network)):
        return read_logits(network(images))[0]


def answer_to_patches(
    network: nn.Module, images: Tensor, kept: Tensor, *, block: str, tokens: int, prefix: int
) -> Tensor:
    """The logits when only some patches of each image go through the blocks.

    Args:
        images: (batch, channels, height, width).
        kept: numbers of the patches that stay, (batch, some), each once.
        block: name of the first block's module, as `block_names` gives it.
        tokens, prefix: how many tokens there are, and how many of them stand before the patches.

    Returns:
        (batch, classes). The network is left as it was.

    Raises:
        UnsupportedNetworkError: its first block takes something else than a row of tokens.
    """
    network = bare(network)
    before = torch.arange(prefix, device=kept.device).expand(len(kept), -1)
    places = torch.cat([before, kept + prefix], dim=1).to(images.device)  # (batch, tokens left)
    passes: list[bool] = []

    def drop(module: nn.Module, given: Sequence[Any]) -> tuple[Any, ...]:
        rows = given[0] if given else None
        if not isinstance(rows, Tensor) or rows.shape[:-1] != (len(kept), tokens):
            raise UnsupportedNetworkError(
                f"{type(network).__name__}'s first block does not take (batch, {tokens} tokens, "
                "channels), so that patches cannot be dropped before it"
            )
        passes.append(True)
        left = rows.gather(1, places.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
        return left, *given[1:]

    handle = network.get_submodule(block).register_forward_pre_hook(drop)
    try:
        logits = answer(network, images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} cannot go on with fewer tokens than the image has patches "
            f"({error}), so that patches cannot be dropped"
        ) from error
    finally:
        handle.remove()
    if len(passes) != 1:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} runs its first block {len(passes)} times, so that patches "
            "cannot be dropped before it"
        )
    return logits
