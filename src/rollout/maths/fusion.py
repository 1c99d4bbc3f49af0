"""One block's attention as a Markov transition: fuse heads, discard the lowest, add the identity.

The steps are those of attention rollout (Abnar & Zuidema, 2020, section 4) with the two knobs that
vit-explain added: how heads are fused, and which share of the lowest entries is discarded.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

from rollout.errors import shown
from rollout.maths.block_sequence import BlockSequence
from rollout.maths.checks import check_real, check_tensor
from rollout.maths.fused_block import FusedBlock
from rollout.settings import (
    HeadFusion,
    check_discard_ratio,
    check_head_fusion,
    check_start_block,
)

Computation = TypeVar("Computation", bound=Callable)


def full_precision(compute: Computation) -> Computation:
    """What is computed in the precision of its input, whatever `torch.autocast` is around it.

    Products in bfloat16 have rows that do not sum to 1.
    """

    @wraps(compute)
    def without_autocast(*args: object, **kwargs: object) -> object:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return compute(*args, **kwargs)

    return without_autocast  # type: ignore[return-value]


BLOCK = "batch, heads, query, key"  # the axes of one block's attention

# Within a group of heads, and from group to group; the mean is a sum until all heads are in.
_REDUCE: dict[HeadFusion, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "mean": (torch.sum, torch.add),
    "max": (torch.amax, torch.maximum),
    "min": (torch.amin, torch.minimum),
}


def fuse_heads(attention: Tensor, head_fusion: HeadFusion = "mean") -> Tensor:
    """Reduce the heads of one block's attention to a single matrix.

    Args:
        attention: probabilities after the softmax, (batch, heads, query, key).
        head_fusion: "mean" is the original rollout; "max" and "min" keep the extreme head.

    Returns:
        (batch, query, key). Rows sum to 1 only for "mean".
    """
    check_tensor("attention", attention, BLOCK)
    (fused,) = fuse_head_groups([attention], [head_fusion])
    return fused


def fuse_head_groups(groups: Iterable[Tensor], head_fusions: Sequence[HeadFusion]) -> list[Tensor]:
    """`fuse_heads` with each fusion, of a block that comes a few heads at a time: one look at each.

    Args:
        groups: (batch, some heads, query, key) each.

    Returns:
        (batch, query, key) for each fusion.
    """
    for head_fusion in head_fusions:
        check_head_fusion(head_fusion)
    fused: list[Tensor] = []
    heads = 0
    for group in groups:
        parts = [_REDUCE[name][0](group, dim=1) for name in head_fusions]
        if heads == 0:
            fused = parts
        else:
            both = zip(head_fusions, fused, parts, strict=True)
            fused = [_REDUCE[name][1](above, part) for name, above, part in both]
        heads += group.shape[1]
    named = zip(head_fusions, fused, strict=True)
    return [matrix / heads if name == "mean" else matrix for name, matrix in named]


def discard_lowest(fused: Tensor, discard_ratio: float) -> Tensor:
    """Set the lowest entries of each image's fused matrix to 0 (the knob of vit-explain).

    Args:
        fused: (batch, query, key), query and key of equal length.
        discard_ratio: share of the entries to discard, in [0, 1).

    Returns:
        (batch, query, key), a new tensor unless there is nothing to discard. The
        int(discard_ratio * query * key) smallest entries of an image are 0; an entry equal to the
        smallest survivor survives, and so does entry (0, 0), the class token's look at itself.
    """
    check_tensor("fused", fused, "batch, query, key")
    return next(discard_each(fused, [discard_ratio]))


def discard_each(fused: Tensor, discard_ratios: Sequence[float]) -> Iterator[Tensor]:
    """`discard_lowest` for each ratio, at the cost of one partition: (batch, query, key) each."""
    for _, _, _, kept in kept_rows([fused], discard_ratios):
        yield kept


def kept_rows(
    fused: Sequence[Tensor], discard_ratios: Sequence[float]
) -> Iterator[tuple[int, int, slice, Tensor]]:
    """`discard_lowest` of each of a block's matrices for each ratio, some queries at a time.

    All queries at once, unless `fused` is a `FusedBlock` of large matrices.

    Returns:
        Number of the matrix, number of the ratio, the queries, and what is kept of their rows,
        (batch, the queries, key), until all queries are there.
    """
    for discard_ratio in discard_ratios:
        check_discard_ratio(discard_ratio)
    block = FusedBlock.of(fused)
    counts = [int(ratio * block.shape[1] * block.shape[2]) for ratio in discard_ratios]
    wanted = sorted({count for count in counts if count})
    smallest_kept = block.order_statistics(wanted) if wanted else []
    for queries, matrices in block.pieces():
        for number, rows in enumerate(matrices):
            for place, count in enumerate(counts):
                smallest = smallest_kept[number][wanted.index(count)] if count else None
                yield number, place, queries, _keep(rows, smallest, queries)


def _keep(rows: Tensor, smallest_kept: Tensor | None, queries: slice) -> Tensor:
    """The rule of `discard_lowest` for the rows of some queries, (batch, the queries, key).

    Args:
        smallest_kept: one per image, (batch,); None where nothing is discarded.
    """
    if smallest_kept is None:
        return rows
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        # One pass, and a tenth of the time of the comparison below, which has two.
        largest_discarded = torch.nextafter(
            smallest_kept, torch.full_like(smallest_kept, -math.inf)
        )
        pairs = zip(rows, largest_discarded.tolist(), strict=True)
        kept = torch.stack([torch.threshold(image, highest, 0) for image, highest in pairs])
    else:
        kept = rows * (rows >= smallest_kept[:, None, None])  # in half the time of torch.where
    if not queries.start:
        kept[:, 0, 0] = rows[:, 0, 0]
    return kept


def transition(fused: Tensor) -> Tensor:
    """Add the residual connection and normalise: where a token's content comes from in one block.

    Args:
        fused: non-negative, (batch, query, key).

    Returns:
        (fused + identity) with each row divided by its own sum, (batch, query, key); for rows that
        sum to 1 this is the 0.5 * attention + 0.5 * identity of Abnar & Zuidema.
    """
    check_tensor("fused", fused, "batch, query, key")
    if fused.shape[-2] != fused.shape[-1]:
        raise ValueError(f"fused must have as many queries as keys, got {tuple(fused.shape)}")
    with_identity = fused + torch.eye(fused.shape[-1], device=fused.device, dtype=fused.dtype)
    return with_identity / with_identity.sum(dim=-1, keepdim=True)


def select_blocks(attentions: Sequence[Tensor], start_block: int = 0) -> Sequence[Tensor]:
    """The blocks from `start_block` to the last; a start that leaves none is an error."""
    if isinstance(attentions, str | bytes) or not isinstance(attentions, Sequence):
        raise TypeError(
            f"attentions must be a list, one tensor ({BLOCK}) per block, got {shown(attentions)}"
        )
    if len(attentions) == 0:
        raise ValueError(
            "attentions is empty; pass one (batch, heads, query, key) tensor per block"
        )
    check_start_block(start_block, len(attentions))
    if not isinstance(attentions, BlockSequence):  # those come of a record
        check_attentions(attentions)
    return attentions[start_block:]


def check_attentions(attentions: Sequence[Tensor]) -> None:
    """Each block is a tensor (batch, heads, query, key) of one batch; no axis is empty."""
    for place, block in enumerate(attentions):
        check_tensor(f"attention of block {place}", block, BLOCK)
        if len(block) != len(attentions[0]):
            raise ValueError(
                f"attention must have one batch in all blocks, got {len(attentions[0])} images in "
                f"block 0 and {len(block)} in block {place}"
            )


def check_readout(readout: Tensor, batch: int, tokens: int) -> None:
    """A readout is a distribution over the tokens that come out of the last block."""
    if not isinstance(readout, Tensor):
        raise TypeError(f"readout must be a tensor ({tokens},), got {type(readout).__name__}")
    check_real("readout", readout)
    if readout.dim() not in (1, 2) or readout.shape[-1] != tokens:
        raise ValueError(
            f"readout must have shape ({tokens},) or (batch, {tokens}), got {tuple(readout.shape)}"
        )
    if readout.dim() == 2 and len(readout) not in (1, batch):
        raise ValueError(
            f"readout holds {len(readout)} distributions for a batch of {batch}; pass one each"
        )
    if not torch.isfinite(readout).all() or (readout < 0).any():
        raise ValueError("readout must hold finite, non-negative weights")
    totals = readout.double().sum(dim=-1)
    tolerance = max(1e-4, torch.finfo(readout.dtype).eps) if readout.is_floating_point() else 0
    if ((totals - 1).abs() > tolerance).any():
        raise ValueError(f"readout must sum to 1, got {totals.tolist()}")
