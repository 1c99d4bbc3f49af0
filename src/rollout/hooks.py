"""Run any Vision Transformer once, record the attention of every block, and leave no trace."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rollout.graph import token_graph
from rollout.record import AttentionRecord
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
        output = network(images.clone() if images.is_inference() else images)
        answer = _answer(output)
    blocks, pooling = token_graph(recorder, network, len(images))
    return AttentionRecord(
        logits=answer.detach(),
        blocks=blocks,
        convolution_size=recorder.convolution_size,
        pooling=pooling,
        maxima=recorder.maxima,
        output=output,
        answer=answer if gradients else None,
    )


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


def _answer(output: Any) -> Tensor:
    """Logits or pooled features, (batch, values), out of whatever the network returned.

    Hugging Face keeps them in fields; tokens that nobody pooled are averaged.
    """
    for name in ("logits", "image_embeds", "pooler_output", "last_hidden_state"):
        field = getattr(output, name, None)
        if isinstance(field, Tensor):
            output = field
            break
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() not in (2, 3):
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedNetworkError(
            f"the network returned {found}; wrap it so that it returns (batch, classes)"
        )
    return output if output.dim() == 2 else output.mean(dim=1)
