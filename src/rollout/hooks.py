"""Run any Vision Transformer once, record the attention of every block, and leave no trace."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rollout.record import AttentionCall, AttentionRecord
from rollout.recorder import AttentionRecorder, UnsupportedNetworkError


def record_attention(
    network: nn.Module, images: Tensor, *, gradients: bool = True
) -> AttentionRecord:
    """Run the network once, in eval mode, and record the attention of all blocks.

    The network is left as it was: mode, `requires_grad`, `.grad`, hooks, also after an exception.

    Args:
        network: any eager module whose blocks call `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, or multiply a softmax with the values.
        images: what the network takes, (batch, channels, height, width).
        gradients: keep what `AttentionRecord.gradients` needs; False is faster and leaner.

    Raises:
        UnsupportedNetworkError: no attention was seen, or none that can be rolled out.
    """
    network = _eager(network)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        stack.enter_context(_frozen(network))
        recorder = stack.enter_context(AttentionRecorder(network, gradients))
        output = _logits(network(images.clone() if images.is_inference() else images))
    blocks = _token_graph(recorder.calls, len(images), type(network).__name__)
    graph = output if gradients else None
    return AttentionRecord(output.detach(), blocks, recorder.convolution_size, graph)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode, parameters without gradient, no activation checkpointing; all restored."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    modules = list(network.modules())
    training = [module for module in modules if module.training]
    flags = ("grad_checkpointing", "gradient_checkpointing")
    checkpointing = [
        (module, flag) for module in modules for flag in flags if vars(module).get(flag) is True
    ]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        for module, flag in checkpointing:
            setattr(module, flag, False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
        for module, flag in checkpointing:
            setattr(module, flag, True)


def _eager(network: nn.Module) -> nn.Module:
    """The module that Python runs: compiled wrappers are opened, what runs unseen is refused."""
    if isinstance(network, torch.jit.ScriptModule):
        raise UnsupportedNetworkError(
            "TorchScript runs out of sight of Python; pass the module that it was made from"
        )
    if isinstance(network, nn.DataParallel):
        raise UnsupportedNetworkError("DataParallel runs in other threads; pass network.module")
    return getattr(network, "_orig_mod", network)  # what torch.compile wraps


def _logits(output: Any) -> Tensor:
    """The network's answer, (batch, classes); Hugging Face keeps it in a field of that name."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise UnsupportedNetworkError(
            f"the network returned {type(output).__name__}; wrap it so that it returns the logits"
        )
    return logits


def _token_graph(calls: list[AttentionCall], batch: int, network: str) -> tuple[AttentionCall, ...]:
    """The calls in which the image's tokens look at one another; pooling looks from outside."""
    if not calls:
        raise UnsupportedNetworkError(
            f"{network} ran without any attention that could be recorded; rollout needs a Vision "
            "Transformer that calls scaled_dot_product_attention or writes out softmax(q k) v"
        )
    blocks = tuple(
        call for call in calls if len(call.shape) == 4 and call.shape[-2] == call.shape[-1]
    )
    sizes = sorted({call.shape[-1] for call in blocks})
    if len(sizes) != 1 or any(call.shape[0] != batch for call in blocks):
        seen = sorted({call.shape for call in calls})
        raise UnsupportedNetworkError(
            f"{network} has no single set of tokens through all blocks (windows, a pyramid or "
            f"cross-attention); attention shapes seen: {seen}"
        )
    return blocks
