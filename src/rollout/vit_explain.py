"""Drop-in for the two classes of vit-explain (J. Gildenblat, 2020): same calls, corrected results.

Corrected are: attention inside fused kernels is seen; rows, not columns, are normalised; gradients
are those of the attention probabilities, each with its own block's attention; which tokens the
classifier reads and how the patches lie is read off the network; no call leaves traces in the next.
`legacy=True` takes all of that back, to reproduce pictures made with the published code.
"""

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import record_attention
from rollout.capture.unfused import record_unfused, score_gradients
from rollout.errors import shown
from rollout.maths.legacy import (
    check_legacy_fusion,
    legacy_attention_rollout,
    legacy_gradient_rollout,
)
from rollout.maths.rollout import attention_rollout, gradient_rollout
from rollout.maths.token_layout import TokenLayout
from rollout.models.labels import class_index
from rollout.models.layout import read_layout
from rollout.models.model import Model
from rollout.models.preprocess import check_batch
from rollout.models.readout import declared_pooling, read_readout
from rollout.settings import HeadFusion, check_discard_ratio, check_head_fusion

ALL_BLOCKS = "attn_drop"


class _DropIn:
    """What both classes do; with a category they follow its gradients."""

    model: nn.Module | Model
    attention_layer_name: str
    head_fusion: HeadFusion
    discard_ratio: float
    legacy: bool

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module | Model):
            raise TypeError(
                f"model must be a network or a Model, got {type(self.model).__name__}; load_model "
                "loads one by its name"
            )
        if not isinstance(self.attention_layer_name, str):
            raise TypeError(
                f"attention_layer_name must be a text, got {shown(self.attention_layer_name)}"
            )
        check_head_fusion(self.head_fusion)
        check_discard_ratio(self.discard_ratio)

    def _mask(self, image: Tensor, category: int | str | None = None) -> np.ndarray:
        network = self.model.network if isinstance(self.model, Model) else self.model
        image = self.model.images(image) if isinstance(self.model, Model) else image
        network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        if not isinstance(image, Tensor):
            raise TypeError(
                "input_tensor must be a tensor (1, channels, height, width), got "
                f"{type(image).__name__}; a Model takes pictures, too"
            )
        if image.dim() != 4 or len(image) != 1:
            raise ValueError(
                "input_tensor must be one image, (1, channels, height, width), got "
                f"{tuple(image.shape)}; `explain` takes batches"
            )
        check_batch(image)
        with torch.inference_mode(False):
            compute = self._legacy if self.legacy else self._corrected
            return _scaled(compute(network, image, category))

    def _corrected(self, network: nn.Module, image: Tensor, category: int | str | None) -> Tensor:
        gradients = category is not None or declared_pooling(network) is None
        record = record_attention(network, image, gradients=gradients)
        layout = self._layout(network, record, image)
        target = None if category is None else self._index(category, record)
        record = _pick_blocks(network, record, self.attention_layer_name)
        received = None if target is None else record.backward(target, retain_graph=False)
        knobs: dict[str, Any] = {
            "head_fusion": self.head_fusion,
            "discard_ratio": self.discard_ratio,
            "readout": read_readout(layout, record, received, self.head_fusion),
        }
        if received is None:
            return layout.to_grid(attention_rollout(record.distributions, **knobs))[0]
        return layout.to_grid(gradient_rollout(record.attentions, received.blocks, **knobs))[0]

    def _layout(self, network: nn.Module, record: AttentionRecord, image: Tensor) -> TokenLayout:
        if isinstance(self.model, Model):
            return self.model.layout_of(record, image)
        height, width = image.shape[-2:]
        return read_layout(network, record, (height, width))

    def _legacy(self, network: nn.Module, image: Tensor, category: int | str | None) -> Tensor:
        image = image.detach().clone().requires_grad_(category is not None)
        record, attentions = record_unfused(network, image, self.attention_layer_name)
        if category is None:
            rollout = legacy_attention_rollout(attentions, self.head_fusion, self.discard_ratio)
        else:
            gradients = score_gradients(record, self._index(category, record), attentions)
            rollout = legacy_gradient_rollout(attentions, gradients, self.discard_ratio)
        assert record.convolution_size is not None  # record_unfused refuses the rest
        return rollout[0, 0, 1:].unflatten(0, record.convolution_size)

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
        if self.legacy:
            check_legacy_fusion(self.head_fusion)

    def __call__(self, input_tensor: Tensor, category_index: int | str) -> np.ndarray:
        """(1, channels, height, width) -> (rows, columns), non-negative; maximum 1, or all 0.

        `category_index` may be a label where the model has labels.
        """
        if not isinstance(category_index, str):
            try:  # numpy's, or a tensor of one element
                category_index = operator.index(category_index)
            except (TypeError, RuntimeError):
                raise TypeError(
                    f"category_index must be one class, got {shown(category_index)}"
                ) from None
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
            f"attention_layer_name={shown(layer_name)} picks none of the attention modules, such "
            f"as {record.blocks[0].module!r}; the default {ALL_BLOCKS!r} takes all"
        )
    return replace(record, blocks=tuple(blocks))


def _scaled(relevance: Tensor) -> np.ndarray:
    """Divide by the maximum; zeros stay zeros, where the published code gives NaN."""
    highest = relevance.max()
    if not highest.isfinite():
        raise ValueError(
            "the map is NaN or infinite; check the weights and the image's values, or use float32 "
            "instead of half precision"
        )
    return (relevance / highest if highest > 0 else relevance).cpu().numpy()
