"""Run any Vision Transformer once, record the attention of every block, and leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.token_graph import token_graph
from rollout.errors import UnsupportedNetworkError

# Where networks keep what they make of an image, the last word first.
LOGITS = ("logits", "image_embeds", "image_features", "pooler_output", "last_hidden_state")


def record_attention(
    network: nn.Module, images: Tensor, *, gradients: bool = True
) -> AttentionRecord:
    """Run the network once, in eval mode, and record the attention of all blocks.

    The network is left as it was: mode, `requires_grad`, `.grad`, hooks, also after an exception.

    Args:
        network: any eager module whose blocks call `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, or multiply a softmax with the values, by `@` or `einsum`.
        images: what the network takes, (batch, channels, height, width).
        gradients: keep what `AttentionRecord.gradients` needs; False is faster and leaner.

    Raises:
        UnsupportedNetworkError: no attention was seen, or none that can be rolled out.
    """
    with observed(network, AttentionRecorder, gradients) as (network, recorder):
        output = network(images.clone() if images.is_inference() else images)
        logits, pooled = _logits(output)
    blocks, pooling = token_graph(recorder, network, len(images))
    return AttentionRecord(
        logits=logits.detach(),
        blocks=blocks,
        convolution_size=recorder.convolution_size,
        convolution_extent=recorder.convolution_extent,
        pooling=pooling,
        maxima=recorder.maxima,
        pooled=pooled,
        output=output,
        logits_graph=logits if gradients else None,
    )


@contextmanager
def observed(
    network: nn.Module, kind: type[AttentionRecorder], gradients: bool
) -> Iterator[tuple[nn.Module, AttentionRecorder]]:
    """The network in eval mode, with a recorder of that kind that sees all it does."""
    network = _eager(network)
    recorder = kind(network, gradients)
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        with _frozen(network), recorder:
            yield network, recorder


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


def field_of(output: Any, name: str) -> Tensor | None:
    """A tensor that the network returned under a name, as Hugging Face and open_clip do."""
    found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None


def _logits(output: Any) -> tuple[Tensor, bool]:
    """Logits or pooled features, (batch, values), out of whatever the network returned.

    Tokens that nobody pooled, (batch, tokens, values), are averaged; the second value is then
    False.
    """
    named = (field_of(output, name) for name in LOGITS)
    logits = next((one for one in named if one is not None), output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 3):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetworkError(
            f"the network returned {found}; wrap it so that it returns (batch, classes)"
        )
    if logits.dim() == 2:
        return logits, True
    return logits.mean(dim=1), logits is field_of(output, "logits")
