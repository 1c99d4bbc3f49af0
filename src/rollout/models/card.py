"""A model's card: how its tokens stand, what explaining an image costs, which methods it allows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rollout.capture.attention_call import AttentionCall
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.own_scores import own_record
from rollout.errors import UnsupportedNetworkError
from rollout.maths.block_sequence import GROUP_ENTRIES
from rollout.maths.token_layout import TokenLayout
from rollout.models.audit import Audit, audit
from rollout.models.model import ImageSource, Model, check_model
from rollout.models.readout import check_own_scores
from rollout.names import one_line
from rollout.settings import METHODS

POOLING_WORDS = {
    "token": "class token",
    "distilled": "mean of class and distillation token",
    "avg": "average of the patches",
    "all": "average of all tokens",
    "token_avg": "class token beside the average of the patches",
    "max": "maximum of the patches",
    "avgmax": "maximum and average of the patches",
    "map": "attention layer",
    "class_attention": "class token with attention blocks of its own",
}


@dataclass(frozen=True)
class ModelCard:
    """What `describe` found.

    Attributes:
        image_size: (height, width) in pixels of what the transform makes.
        grid_size: (rows, columns) of patches.
        pooling: what the classifier reads, in words.
        num_heads: of the first block.
        memory: bytes that one image needs beside the weights, with gradients.
        methods: method to why it is not possible; "" where it is.
        network: the class of the network.
        audit: of the image that was given; None without one.
    """

    name: str
    network: str
    image_size: tuple[int, int]
    grid_size: tuple[int, int]
    num_prefix_tokens: int
    pooling: str
    num_blocks: int
    num_heads: int
    num_classes: int
    memory: int
    methods: dict[str, str]
    audit: Audit | None = None

    def table(self) -> pd.Series:
        """One row per property, for people."""
        rows: dict[str, str] = {
            "network": self.network,
            "image": "{} x {} pixels".format(*self.image_size),
            "patch grid": "{} x {} (rows x columns)".format(*self.grid_size),
            "prefix tokens": str(self.num_prefix_tokens),
            "the classifier reads": self.pooling,
            "blocks": str(self.num_blocks),
            "heads": str(self.num_heads),
            "classes": str(self.num_classes) if self.num_classes else "none: features",
            "memory for one image": f"{self.memory / 2**20:.0f} MiB",
        }
        rows |= {name: why and f"no: {why}" or "yes" for name, why in self.methods.items()}
        rows |= {} if self.audit is None else _audited(self.audit)
        return pd.Series(rows, name=one_line(self.name))

    def __str__(self) -> str:
        rows = self.table()
        width = max(map(len, rows.index))
        return "\n".join(
            [str(rows.name), *(f"  {key:<{width}}  {rows[key]}" for key in rows.index)]
        )

    def _repr_html_(self) -> str:
        return self.table().to_frame()._repr_html_()


def describe(model: Model, image: ImageSource | None = None) -> ModelCard:
    """Grid, prefix tokens, pooling, blocks, heads, memory, and which methods are possible.

    Runs one black image through the network, once more to see whether it can end after any block.

    Args:
        image: as for `explain`; with it the card says what `audit` finds in it. A black image would
            say nothing of the attention that real ones get.
    """
    check_model(model)
    found = None if image is None else audit(model, image)
    black = model.black_image()
    saved = _SavedBytes(model.network)
    with saved:
        record = model.record(black, gradients=True)
    layout, first = model.layout_of(record, black), record.blocks[0]
    group = min(4 * GROUP_ENTRIES, 4 * first.shape[1] * record.num_tokens**2)
    height, width = black.shape[-2:]
    return ModelCard(
        name=model.name,
        network=type(model.network).__name__,
        image_size=(height, width),
        grid_size=layout.grid_size,
        num_prefix_tokens=layout.num_prefix_tokens,
        pooling=POOLING_WORDS[layout.pooling],
        num_blocks=len(record.blocks),
        num_heads=first.shape[1],
        num_classes=model.num_classes,
        memory=saved.bytes(_never_built(record)) + 3 * group + 8 * record.num_tokens**2,
        methods=_methods(model, record, layout, black),
        audit=found,
    )


def _audited(audit: Audit) -> dict[str, str]:
    """Of each image the block that sends most attention to one patch, and what dominates."""
    rows = {}
    for index, shares in enumerate(audit.shares):
        block = int(shares.argmax())
        row, column = audit.patches[index, block].tolist()
        times = shares[block].item() * audit.num_tokens
        name = "most attention" if len(audit.shares) == 1 else f"most attention, image {index}"
        rows[name] = (
            f"block {block + 1} sends {shares[block]:.0%} to row {row}, column {column}, "
            f"{times:.0f} times the uniform share"
        )
        rows[name.replace("most attention", "attention rollout")] = (
            audit.dominated(index) or "no patch stands out"
        )
    return rows


def _methods(
    model: Model, record: AttentionRecord, layout: TokenLayout, images: Tensor
) -> dict[str, str]:
    """Each method, and why it is not possible."""
    needs_score = "" if model.num_classes else "there is no classifier; give a score="
    reasons = {name: needs_score if one.gradients else "" for name, one in METHODS.items()}
    if not record.has_scores:
        reasons["agcam"] = "needs fused attention, which leaves its scores to be seen"
    reasons["legrad_per_block"] = _own_scores(model, record, layout, images) or needs_score
    legacy = "" if layout.fits_legacy else "needs one class token and a square patch grid"
    return {**reasons, "legacy=True": legacy}


def _own_scores(model: Model, record: AttentionRecord, layout: TokenLayout, images: Tensor) -> str:
    """Why a block's own tokens cannot be classified; "" where they can: it is tried."""
    try:
        check_own_scores(model.name, layout)
        own_record(model.network, images, record)
    except UnsupportedNetworkError:
        return "a block's own tokens cannot be classified; use legrad"
    return ""


class _SavedBytes(saved_tensors_hooks):
    """Counts what autograd keeps for the backward pass, weights left out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(self._count, lambda tensor: tensor)
        self._sizes: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._weights = {_storage(weight) for weight in network.state_dict().values()}

    def _count(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._weights:
            size = tensor.untyped_storage().nbytes()
            self._sizes[_storage(tensor)] = size, tuple(tensor.shape[-2:])
        return tensor

    def bytes(self, without: set[tuple[int, int]]) -> int:
        """The sum over all tensors but those of the given (query, key)."""
        return sum(size for size, shape in self._sizes.values() if shape not in without)


def _never_built(record: AttentionRecord) -> set[tuple[int, int]]:
    """The matrices that a fused kernel never builds, although tracing without data shows them."""
    fused = all(
        isinstance(block, AttentionCall) and block.query is not None for block in record.blocks
    )
    return {(record.num_tokens, record.num_tokens)} if fused and record.logits.is_meta else set()


def _storage(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata if isinstance(tensor, torch.Tensor) else 0
