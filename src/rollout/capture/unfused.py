"""What the published code saw: attention with fused kernels switched off, and its gradients."""

from contextlib import ExitStack
from threading import get_ident

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.forward_pass import bare, record_attention
from rollout.capture.network_state import changed, signals_wait
from rollout.errors import UnsupportedNetworkError, shown


def record_unfused(
    network: nn.Module, image: Tensor, layer_name: str
) -> tuple[AttentionRecord, list[Tensor]]:
    """The record, and what the modules with `layer_name` in their name returned: the attention.

    Where the image requires a gradient, the graph holds what went into each softmax.
    """
    outputs: list[Tensor] = []
    thread = get_ident()  # others may run the network at the same time

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        if get_ident() == thread:
            outputs.append(output)

    network = bare(network)
    unfused = [
        (module, "fused_attn", False)
        for module in network.modules()
        if isinstance(vars(module).get("fused_attn"), bool)
    ]
    with signals_wait(), changed(unfused), ExitStack() as stack:
        for name, module in network.named_modules():
            if layer_name in name:
                stack.enter_context(module.register_forward_hook(keep))
        record = record_attention(network, image, gradients=image.requires_grad)
    _check_legacy(record, layer_name, outputs)
    return record, outputs


def _check_legacy(record: AttentionRecord, layer_name: str, outputs: list[Tensor]) -> None:
    """Refuse what the published code fails on, or lays out wrongly without a word."""
    tokens, grid_size = record.num_tokens, record.convolution_size
    if not outputs or any(output.shape[2:] != (tokens, tokens) for output in outputs):
        fault = (
            f"an attention_layer_name of modules that return attention; of {shown(layer_name)} "
            "this network has none"
        )
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
