"""The length of every token as it enters each block, by hooks that are gone afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


class BlockInputs:
    """What entered each module that stands in a list of modules: norms over the channels."""

    def __init__(self, network: nn.Module) -> None:
        self._network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        self._norms: dict[str, Tensor] = {}

    @contextmanager
    def watched(self) -> Iterator["BlockInputs"]:
        handles = []
        try:
            for name, module in self._network.named_modules():
                if self._in_a_list(name):
                    hook = self._keeper(name)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def norms(self, modules: Sequence[str], batch: int, tokens: int) -> Tensor:
        """(blocks, batch, tokens) of the blocks around the named attention modules.

        NaN where a block's own module cannot be told, or takes something else than tokens.
        """
        blocks = [self._block_of(name) for name in modules]
        told = None not in blocks and len(set(blocks)) == len(blocks)
        unknown = torch.full((batch, tokens), float("nan"))
        rows = [_as_tokens(self._norms.get(name or ""), batch, tokens) for name in blocks]
        return torch.stack([row if told and row is not None else unknown for row in rows])

    def _block_of(self, name: str) -> str | None:
        """The deepest module of a list that the attention is, or lies in."""
        parts = name.split(".")
        above = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((one for one in above if self._in_a_list(one)), None)

    def _in_a_list(self, name: str) -> bool:
        if not name:
            return False
        try:
            return isinstance(self._network.get_submodule(name.rpartition(".")[0]), CONTAINERS)
        except AttributeError:  # a name that is not one of the network's modules
            return False

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            tensors = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
            if tensors and tensors[0].dim() == 3 and name not in self._norms:
                self._norms[name] = tensors[0].detach().float().norm(dim=-1).cpu()

        return keep


def _as_tokens(norms: Tensor | None, batch: int, tokens: int) -> Tensor | None:
    """(batch, tokens), also of networks that keep tokens first; None where that cannot be told."""
    if norms is None or batch == tokens:
        return None
    if norms.shape == (batch, tokens):
        return norms
    return norms.T if norms.shape == (tokens, batch) else None
