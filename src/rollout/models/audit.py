"""The audit: which patch draws most attention in each block, and what that does to the map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.blocks import Block
from rollout.capture.token_norms import BlockInputs
from rollout.maths.checks import check_index
from rollout.maths.dominance import (
    DRAWN,
    Dominance,
    attention_received,
    find_dominance,
    trace_back,
)
from rollout.maths.rollout import chain
from rollout.maths.token_layout import Extent, TokenLayout
from rollout.models.model import ImageSource, Model, check_model
from rollout.models.readout import read_readout
from rollout.names import one_line
from rollout.plots.audit import plot_audit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Audit:
    """What `audit` found: for each image and block the patch that draws most attention.

    Attributes:
        patches: its row and column, (batch, blocks, 2), from 0.
        shares: of all attention that the block's queries spend, what the patch draws: mean over
            queries and heads, (batch, blocks).
        heads: the same head by head, (batch, heads) for each block.
        prefix_shares: what the class token and its like draw together, (batch, blocks).
        token_norms: the length of the patch's token as it enters the block, in units of the median
            patch's, (batch, blocks); NaN where the network does not show it.
        value_norms: the same of its value vector, all heads side by side.
        map_shares: of attention rollout's map, what the patch holds, (batch, blocks).
        map: attention rollout of all blocks, (batch, rows, columns).
        dominance: the patch that stands out in each map; None where none does.
        num_tokens: how many share the attention; uniform attention gives each 1 / num_tokens.
        pictures: (batch, height, width, 3) in [0, 1].
        extent: the pixels that the patches cover, as `Explanation.extent`.
    """

    name: str
    patches: Tensor
    shares: Tensor
    heads: tuple[Tensor, ...]
    prefix_shares: Tensor
    token_norms: Tensor
    value_norms: Tensor
    map_shares: Tensor
    map: Tensor
    dominance: tuple[Dominance | None, ...]
    num_tokens: int
    pictures: Tensor
    extent: Extent | None = None

    def table(self) -> pd.DataFrame:
        """One row per image and block.

        Images and patches count from 0, blocks and heads from 1; `heads` names those in which the
        patch draws more than five times the uniform share, `head_share` is that of the strongest.
        """
        batch, blocks = self.shares.shape
        rows = [self._row(index, block) for index in range(batch) for block in range(blocks)]
        return pd.DataFrame(rows)

    def _row(self, index: int, block: int) -> dict[str, object]:
        row, column = self.patches[index, block].tolist()
        heads, share = self.heads[block][index], self.shares[index, block].item()
        drawn = (heads * self.num_tokens > DRAWN).nonzero().flatten() + 1
        return {
            "image": index,
            "block": block + 1,
            "row": row,
            "column": column,
            "share": share,
            "times_uniform": share * self.num_tokens,
            "heads": " ".join(map(str, drawn.tolist())),
            "head_share": heads.max().item(),
            "prefix_share": self.prefix_shares[index, block].item(),
            "token_norm": self.token_norms[index, block].item(),
            "value_norm": self.value_norms[index, block].item(),
            "map_share": self.map_shares[index, block].item(),
        }

    def dominated(self, index: int = 0) -> str:
        """A sentence where one patch dominates the image's attention rollout; "" where none."""
        check_index("index", index, len(self.dominance))
        return str(self.dominance[index] or "")

    def plot(self) -> "Figure":
        """Each image with its patches outlined, beside the shares by block."""
        grid_size = self.map.shape[1], self.map.shape[2]
        heads = [[one[index].numpy() for one in self.heads] for index in range(len(self.map))]
        return plot_audit(
            self.pictures.numpy(),
            grid_size,
            self.patches.numpy(),
            self.shares.numpy(),
            heads,
            1 / self.num_tokens,
            self.extent,
        )

    def __str__(self) -> str:
        table = self.table()
        percent = ["share", "head_share", "prefix_share", "map_share"]
        table[percent] = table[percent].map("{:.1%}".format)
        numbers = ["times_uniform", "token_norm", "value_norm"]
        table[numbers] = table[numbers].map("{:.1f}".format)
        table = table.drop(columns="image") if len(self.map) == 1 else table
        lines = [f"{one_line(self.name)}: the patch that draws most attention in each block"]
        lines += [table.to_string(index=False), *self._sentences()]
        return "\n".join(lines)

    def _sentences(self) -> Iterator[str]:
        for index in range(len(self.map)):
            whose = "attention rollout" if len(self.map) == 1 else f"image {index}"
            yield f"{whose}: {self.dominated(index) or 'no patch stands out'}"

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html(index=False)


def audit(model: Model, image: ImageSource) -> Audit:
    """Look for the patch that draws most attention in each block, and for what it does to maps.

    Vision Transformers send much of their attention to single patches that hold nothing of interest
    (Darcet et al., 2024); where that happens in an early block, rollout through it is a single dot.

    Args:
        image: as for `explain`; several images are looked at together.
    """
    check_model(model)
    images = model.images(image)
    inputs = BlockInputs(model.network)
    with inputs.watched():
        record = model.record(images, gradients=False)
    layout = model.layout_of(record, images)
    modules = [block.module for block in record.blocks]
    norms = inputs.norms(modules, len(images), record.num_tokens)
    return _audited(model, images, record, layout, norms)


def _audited(
    model: Model, images: Tensor, record: AttentionRecord, layout: TokenLayout, norms: Tensor
) -> Audit:
    """Args: norms: of the tokens that enter each block, (blocks, batch, tokens)."""
    received: list[Tensor] = []  # (batch, heads, tokens) for each block
    fused: list[Tensor] = []  # (batch, query, key)
    for attention in record.distributions:
        received.append(attention_received(attention).cpu())
        fused.append(attention.mean(dim=1))
    readout, prefix = read_readout(layout, record), layout.num_prefix_tokens
    drawn = torch.stack([one.mean(dim=1) for one in received], dim=1)  # (batch, blocks, tokens)
    places = drawn[:, :, prefix:].argmax(dim=2)  # (batch, blocks)
    maps = _rollout(fused, readout, layout)
    pairs = zip(received, places.T, strict=True)
    found = [_dominance(index, maps, drawn, fused, readout, layout) for index in range(len(maps))]
    return Audit(
        name=model.name,
        patches=torch.stack([places // layout.grid_size[1], places % layout.grid_size[1]], dim=2),
        shares=_at(drawn[:, :, prefix:], places),
        heads=tuple(_of_heads(one[:, :, prefix:], at) for one, at in pairs),
        prefix_shares=drawn[:, :, :prefix].sum(dim=2),
        token_norms=_against_median(norms.transpose(0, 1)[:, :, prefix:], places),
        value_norms=_against_median(_value_norms(record.blocks)[:, :, prefix:], places),
        map_shares=_at((maps / maps.sum((1, 2), True)).flatten(1)[:, None], places),
        map=maps,
        dominance=tuple(found),
        num_tokens=layout.num_tokens,
        pictures=model.pictures(images),
        extent=layout.extent,
    )


def _rollout(fused: Sequence[Tensor], readout: Tensor, layout: TokenLayout) -> Tensor:
    """Attention rollout through the blocks, (batch, rows, columns)."""
    relevance = chain(([one] for one in reversed(fused)), [0.0], [readout])[0, 0]
    return layout.to_grid(relevance).float().cpu()


def _dominance(
    index: int,
    maps: Tensor,
    drawn: Tensor,
    fused: Sequence[Tensor],
    readout: Tensor,
    layout: TokenLayout,
) -> Dominance | None:
    found = find_dominance(maps[index].numpy())
    if found is None:
        return None
    shares = drawn[index, :, layout.token(found.patch)].tolist()

    def without(block: int) -> np.ndarray:
        return _rollout(fused[block:], readout, layout)[index].numpy()

    return trace_back(found, shares, layout.num_tokens, 0, len(fused), without)


def _value_norms(blocks: Sequence[Block]) -> Tensor:
    """The lengths of the value vectors, all heads side by side: (batch, blocks, tokens)."""
    squares = [
        sum(call.value.float().square().sum(dim=(1, 3)).cpu() for call in block.calls)
        for block in blocks
    ]
    return torch.stack([torch.as_tensor(one) for one in squares], dim=1).sqrt()


def _against_median(norms: Tensor, places: Tensor) -> Tensor:
    """The patch's norm over the median patch's: (batch, blocks, patches) -> (batch, blocks)."""
    return _at(norms, places) / norms.median(dim=2).values


def _of_heads(received: Tensor, places: Tensor) -> Tensor:
    """What the patch draws in each head: (batch, heads, patches) -> (batch, heads)."""
    return _at(received, places[:, None].expand(received.shape[:2]))


def _at(values: Tensor, places: Tensor) -> Tensor:
    """values[b, k, places[b, k]]: (batch, 1 or blocks, patches) -> (batch, blocks)."""
    wide = values.expand(-1, places.shape[1], -1)
    return wide.gather(2, places[:, :, None]).squeeze(2)
