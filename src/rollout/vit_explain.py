"""Drop-in for the two classes of vit-explain (J. Gildenblat, 2020): same calls, corrected results.

Corrected are: attention inside fused kernels is seen; rows, not columns, are normalised; gradients
are those of the attention probabilities, each with its own block's attention; which tokens the
classifier reads and how the patches lie is read off the network; no call leaves traces in the next.
`legacy=True` takes all of that back, to reproduce pictures made with the published code.
"""

import math
import operator
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from rollout.fusion import HeadFusion, check_discard_ratio, check_head_fusion, fuse_heads
from rollout.hooks import UnsupportedNetworkError, record_attention
from rollout.labels import class_index
from rollout.models import Model, read_layout
from rollout.record import AttentionRecord
from rollout.rollout import attention_rollout, gradient_rollout

ALL_BLOCKS = "attn_drop"


class _DropIn:
    """What both classes do; with a category they follow its gradients."""

    model: nn.Module | Model
    attention_layer_name: str
    head_fusion: HeadFusion
    discard_ratio: float
    legacy: bool

    def __post_init__(self) -> None:
        check_head_fusion(self.head_fusion)
        check_discard_ratio(self.discard_ratio)

    def _mask(self, image: Tensor, category: int | str | None = None) -> np.ndarray:
        network = self.model.network if isinstance(self.model, Model) else self.model
        image = self.model.images(image) if isinstance(self.model, Model) else image
        network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        if image.dim() != 4 or len(image) != 1:
            raise ValueError(
                "input_tensor must be one image, (1, channels, height, width), got "
                f"{tuple(image.shape)}; `explain` takes batches"
            )
        with torch.inference_mode(False):
            compute = self._published if self.legacy else self._corrected
            return _scaled(compute(network, image, category))

    def _corrected(self, network: nn.Module, image: Tensor, category: int | str | None) -> Tensor:
        record = record_attention(network, image, gradients=category is not None)
        layout = read_layout(network, record)
        record = _pick_blocks(network, record, self.attention_layer_name)
        knobs: dict[str, Any] = {
            "head_fusion": self.head_fusion,
            "discard_ratio": self.discard_ratio,
            "readout": layout.readout,
        }
        if category is None:
            return layout.to_grid(attention_rollout(record.attentions, **knobs))[0]
        gradients = record.gradients(self._index(category, record), retain_graph=False)
        return layout.to_grid(gradient_rollout(record.attentions, gradients, **knobs))[0]

    def _published(self, network: nn.Module, image: Tensor, category: int | str | None) -> Tensor:
        image = image.detach().clone().requires_grad_(category is not None)
        record, attentions = _record_unfused(network, image, self.attention_layer_name)
        if category is None:
            fused = [fuse_heads(attention.cpu(), self.head_fusion) for attention in attentions]
            return _published_rollout(fused, self.discard_ratio, spare_first=True)
        gradients = _score_gradients(record, self._index(category, record), attentions)
        # Its backward hooks collect the last block first, its forward hooks the first block first.
        pairs = zip(attentions, reversed(gradients), strict=True)
        fused = [fuse_heads(block.detach().cpu() * gradient.cpu()) for block, gradient in pairs]
        positive = [block.masked_fill(block < 0, 0) for block in fused]
        return _published_rollout(positive, self.discard_ratio, spare_first=False)

    def _index(self, category: int | str, record: AttentionRecord) -> int:
        labels = self.model.labels if isinstance(self.model, Model) else None
        return class_index(category, labels, record.logits.shape[1])


@dataclass(eq=False)
class VITAttentionRollout(_DropIn):
    """Attention rollout of one image, called as in vit-explain's `vit_rollout.py`.

    Attributes:
        model: the network, or what `load_model` or `wrap_model` returned.
        attention_layer_name: picks the blocks whose attention module, or a module inside it, has
            this in its name; the default stands for all blocks.
        head_fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each fused matrix's lowest entries set to 0, in [0, 1).
        legacy: what the published code computes on a fresh instance with the network in eval mode
            and fused attention off, bit for bit; only for a class token and a square patch grid.
    """

    model: nn.Module | Model = field(repr=False)
    attention_layer_name: str = ALL_BLOCKS
    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.9
    legacy: bool = False

    def __call__(self, input_tensor: Tensor) -> np.ndarray:
        """(1, channels, height, width) -> (rows, columns), non-negative; maximum 1, or all 0."""
        return self._mask(input_tensor)


@dataclass(eq=False)
class VITAttentionGradRollout(_DropIn):
    """Gradient rollout of one image, called as in vit-explain's `vit_grad_rollout.py`.

    Attributes as in `VITAttentionRollout`, in the published order. The published class takes the
    mean over the heads, although its README passes a `head_fusion`: with `legacy` anything but
    "mean" is refused, as there is no published picture that it would reproduce.
    """

    model: nn.Module | Model = field(repr=False)
    attention_layer_name: str = ALL_BLOCKS
    discard_ratio: float = 0.9
    head_fusion: HeadFusion = "mean"
    legacy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.legacy and self.head_fusion != "mean":
            raise ValueError(
                "the published gradient rollout knows only head_fusion='mean', got "
                f"{self.head_fusion!r} with legacy=True; use legacy=False"
            )

    def __call__(self, input_tensor: Tensor, category_index: int | str) -> np.ndarray:
        """(1, channels, height, width) -> (rows, columns), non-negative; maximum 1, or all 0.

        `category_index` may be a label where the model has labels.
        """
        if not isinstance(category_index, str):
            category_index = operator.index(category_index)  # numpy's, or a tensor of one element
        return self._mask(input_tensor, category_index)


def _pick_blocks(network: nn.Module, record: AttentionRecord, layer_name: str) -> AttentionRecord:
    """The blocks with `layer_name` in the name of their attention, or of a module inside it."""
    if layer_name == ALL_BLOCKS:
        return record
    named = [f"{name}." for name, _ in network.named_modules() if layer_name in name]
    blocks = [
        block
        for block in record.blocks
        if any(name.startswith(f"{block.module}.") for name in named)
    ]
    if not blocks:
        raise ValueError(
            f"attention_layer_name={layer_name!r} picks none of the attention modules, such as "
            f"{record.blocks[0].module!r}; the default {ALL_BLOCKS!r} takes all"
        )
    return replace(record, blocks=tuple(blocks))


def _record_unfused(
    network: nn.Module, image: Tensor, layer_name: str
) -> tuple[AttentionRecord, list[Tensor]]:
    """The record, and what the modules with `layer_name` in their name returned: the attention.

    Where the image requires a gradient, the graph holds what went into each softmax.
    """
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if vars(module).get("fused_attn") is True:
                stack.callback(vars(module).update, fused_attn=True)
                vars(module).update(fused_attn=False)
            if layer_name in name:
                keep = module.register_forward_hook(lambda *call: outputs.append(call[-1]))
                stack.enter_context(keep)
        record = record_attention(network, image, gradients=image.requires_grad)
    _check_published(record, layer_name, outputs)
    return record, outputs


def _check_published(record: AttentionRecord, layer_name: str, outputs: list[Tensor]) -> None:
    """Refuse what the published code fails on, or lays out wrongly without a word."""
    tokens, grid_size = record.num_tokens, record.convolution_size
    if not outputs or any(output.shape[2:] != (tokens, tokens) for output in outputs):
        fault = f"modules named *{layer_name}* that return attention, which this network lacks"
    elif grid_size is None or grid_size[0] != grid_size[1] or tokens != 1 + grid_size[0] ** 2:
        fault = f"one class token and a square patch grid, not {tokens} tokens, grid {grid_size}"
    else:
        return
    raise UnsupportedNetworkError(f"legacy=True needs {fault}; use legacy=False")


def _score_gradients(
    record: AttentionRecord, category: int, attentions: list[Tensor]
) -> tuple[Tensor, ...]:
    """d(logit) / d(input of the softmax) of each block, first block first.

    That is what the published backward hook receives, not the gradient of the probabilities:
    dropout in eval mode returns its input, so the hook hangs on the softmax.
    """
    assert record.output is not None  # recorded with gradients
    with torch.enable_grad():
        score = record.output[:, category].sum()
    return torch.autograd.grad(score, [_softmax_input(attention) for attention in attentions])


def _softmax_input(attention: Tensor) -> GradientEdge:
    scores, number = attention.grad_fn.next_functions[0] if attention.grad_fn else (None, 0)
    if scores is None:
        raise UnsupportedNetworkError(
            "legacy=True needs gradients all the way from the attention to the image, and this "
            "network cuts them; use legacy=False"
        )
    return GradientEdge(scores, number)


def _published_rollout(
    fused_blocks: Iterable[Tensor], discard_ratio: float, *, spare_first: bool
) -> Tensor:
    """The published arithmetic: (1, query, key) per block -> the class token's (rows, columns)."""
    rollout: Tensor | None = None
    for fused in fused_blocks:
        kept = _published_discard(fused, discard_ratio, spare_first)
        dtype = torch.promote_types(kept.dtype, torch.get_default_dtype())
        identity = torch.eye(kept.shape[-1], dtype=dtype)
        halves = (kept + identity) / 2
        # Without keepdim: each column is divided by the sum of the row of its number.
        transition = halves / halves.sum(dim=-1)
        rollout = transition @ (identity if rollout is None else rollout)
    assert rollout is not None  # _check_published
    side = math.isqrt(rollout.shape[-1] - 1)
    return rollout[0, 0, 1:].unflatten(0, (side, side))


def _published_discard(fused: Tensor, discard_ratio: float, spare_first: bool) -> Tensor:
    """Unlike `discard_lowest`, topk chooses among equal entries, so that just so many become 0."""
    check_discard_ratio(discard_ratio)
    entries = fused.flatten(1)  # (1, query, key) -> (1, query * key)
    lowest = entries.topk(int(entries.shape[1] * discard_ratio), largest=False).indices[0]
    return entries.index_fill(1, lowest[lowest != 0] if spare_first else lowest, 0).view_as(fused)


def _scaled(relevance: Tensor) -> np.ndarray:
    """Divide by the maximum; zeros stay zeros, where the published code gives NaN."""
    highest = relevance.max()
    if not highest.isfinite():
        raise ValueError(
            "the map is NaN or infinite; check the weights and the image's values, or use float32 "
            "instead of half precision"
        )
    return (relevance / highest if highest > 0 else relevance).cpu().numpy()
