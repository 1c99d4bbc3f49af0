"""The arithmetic of vit-explain as it was published, faults included, to reproduce its pictures.

Two of them are deliberate here: columns, not rows, are normalised, and gradients are those of the
softmax's input, each block's paired with the attention of the block opposite in the network.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from rollout.fusion import HeadFusion, check_discard_ratio, fuse_heads
from rollout.hooks import UnsupportedNetworkError, record_attention
from rollout.record import AttentionRecord


def record_unfused(
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


def score_gradients(
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


def published_attention_rollout(
    attentions: Sequence[Tensor], head_fusion: HeadFusion, discard_ratio: float
) -> Tensor:
    """The published attention rollout of each image: (batch, query, key)."""
    fused = [fuse_heads(attention.detach().cpu(), head_fusion) for attention in attentions]
    return _image_by_image(fused, discard_ratio, spare_first=True)


def published_gradient_rollout(
    attentions: Sequence[Tensor], score_gradients: Sequence[Tensor], discard_ratio: float
) -> Tensor:
    """The published gradient rollout of each image: (batch, query, key).

    Args:
        score_gradients: of the softmax's input, first block first. The published backward hooks
            collect the last block first, its forward hooks the first block first.
    """
    pairs = zip(attentions, reversed(score_gradients), strict=True)
    fused = [fuse_heads(block.detach().cpu() * gradient.cpu()) for block, gradient in pairs]
    positive = [block.masked_fill(block < 0, 0) for block in fused]
    return _image_by_image(positive, discard_ratio, spare_first=False)


def through_softmax(attention: Tensor, gradient: Tensor) -> Tensor:
    """From d(logit) / d(probabilities) to d(logit) / d(input of the softmax)."""
    weighted = attention * gradient
    return weighted - attention * weighted.sum(dim=-1, keepdim=True)


def _image_by_image(fused: Sequence[Tensor], discard_ratio: float, *, spare_first: bool) -> Tensor:
    """The published code multiplies one image's blocks: (batch, query, key) per block and out."""
    images = range(len(fused[0]))
    return torch.cat(
        [
            _multiply([block[[image]] for block in fused], discard_ratio, spare_first)
            for image in images
        ]
    )


def _multiply(fused_blocks: Iterable[Tensor], discard_ratio: float, spare_first: bool) -> Tensor:
    rollout: Tensor | None = None
    for fused in fused_blocks:
        kept = _discard(fused, discard_ratio, spare_first)
        dtype = torch.promote_types(kept.dtype, torch.get_default_dtype())
        identity = torch.eye(kept.shape[-1], dtype=dtype)
        halves = (kept + identity) / 2
        # Without keepdim: each column is divided by the sum of the row of its number.
        transition = halves / halves.sum(dim=-1)
        rollout = transition @ (identity if rollout is None else rollout)
    assert rollout is not None  # _check_published
    return rollout


def _discard(fused: Tensor, discard_ratio: float, spare_first: bool) -> Tensor:
    """Unlike `discard_lowest`, topk chooses among equal entries, so that just so many become 0."""
    check_discard_ratio(discard_ratio)
    entries = fused.flatten(1)  # (1, query, key) -> (1, query * key)
    lowest = entries.topk(int(entries.shape[1] * discard_ratio), largest=False).indices[0]
    return entries.index_fill(1, lowest[lowest != 0] if spare_first else lowest, 0).view_as(fused)
