"""The lengths of tokens as they enter each block, and NaN where that cannot be told."""

import pytest
import torch
from helpers import condition
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.capture.token_norms import BlockInputs

BATCH, TOKENS, WIDTH = 2, 5, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, **_: object) -> Tensor:
        return tokens + self.mlp(self.attn(tokens).tanh())


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(WIDTH, WIDTH), nn.ModuleList(Block() for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.stem(tokens)
        for block in self.blocks:
            tokens = block(tokens=tokens) if block is self.blocks[1] else block(tokens)
        return tokens


NAMES = ["blocks.0.attn", "blocks.1.attn", "blocks.2"]


def watched(network: nn.Module, tokens: Tensor) -> BlockInputs:
    before, inputs = condition(network), BlockInputs(network)
    with inputs.watched() as given:
        network(tokens)
        network(2 * tokens)  # of several passes the first counts
    assert given is inputs and condition(network) == before
    return inputs


def entering(network: Blocks, tokens: Tensor) -> Tensor:
    """(blocks, batch, tokens), by hand."""
    inputs = [network.stem(tokens)]
    for block in network.blocks[:2]:
        inputs.append(block(inputs[-1]))
    return torch.stack([one.detach().norm(dim=-1) for one in inputs])


def test_lengths_are_those_of_what_enters_each_block():
    network, tokens = Blocks(), torch.randn(BATCH, TOKENS, WIDTH)
    found = watched(network, tokens).norms(NAMES, BATCH, TOKENS)
    assert_close(found, entering(network, tokens))
    tokens_first = watched(network, tokens.transpose(0, 1)).norms(NAMES, BATCH, TOKENS)
    assert_close(tokens_first, found)


def test_what_is_wrapped_by_compile_is_watched_inside():
    network, tokens = Blocks(), torch.randn(BATCH, TOKENS, WIDTH)
    with (inputs := BlockInputs(torch.compile(network))).watched():
        network(tokens)
    assert_close(inputs.norms(NAMES, BATCH, TOKENS), entering(network, tokens))


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((BATCH, TOKENS - 1, WIDTH), NAMES),  # windows, or what else
        ((BATCH - 1, TOKENS, WIDTH), NAMES),
        ((TOKENS - 1, BATCH - 1, WIDTH), NAMES),
        ((BATCH, 3, TOKENS, WIDTH), NAMES),
        ((BATCH, TOKENS, WIDTH), ["blocks.0.attn", "blocks.0.mlp", "blocks.2"]),  # two in one
        ((BATCH, TOKENS, WIDTH), ["blocks.0.attn", "stem", "blocks.2"]),  # in no list
        ((BATCH, TOKENS, WIDTH), ["blocks.0.attn", "?", "a.b"]),  # none of the network's
        ((BATCH, TOKENS, WIDTH), ["blocks.0.attn", "", "blocks.2"]),
    ],
)
def test_lengths_that_cannot_be_told_are_nan(shape, names):
    found = watched(Blocks(), torch.randn(shape)).norms(names, BATCH, TOKENS)
    assert found.shape == (3, BATCH, TOKENS) and found.isnan().all()


def test_as_many_images_as_tokens_could_be_either():
    found = watched(Blocks(), torch.randn(3, 3, WIDTH)).norms(NAMES, 3, 3)
    assert found.isnan().all()


def test_a_block_of_another_size_leaves_the_others():
    class Shrinking(Blocks):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.blocks[2](self.blocks[1](self.blocks[0](tokens))[:, :2])

    tokens = torch.randn(BATCH, TOKENS, WIDTH)
    found = watched(Shrinking(), tokens).norms(NAMES, BATCH, TOKENS)
    assert found[:2].isfinite().all() and found[2].isnan().all()
    assert_close(found[0], tokens.norm(dim=-1))


def test_hooks_are_gone_after_an_exception():
    network = Blocks()
    before = condition(network)
    with pytest.raises(RuntimeError), BlockInputs(network).watched():
        network(torch.randn(BATCH, TOKENS, WIDTH + 1))
    assert condition(network) == before
