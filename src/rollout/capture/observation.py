"""Run a network as it is for one look at it, and leave no trace."""

from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.network_state import changed, frozen, interruptible, seen_by, signals_wait
from rollout.errors import UnsupportedNetworkError


def observe(network: nn.Module, images: Tensor, recorder: AttentionRecorder) -> Any:
    """What the network makes of the images in eval mode, seen by the recorder.

    Its state is put back whatever happens: an exception, other threads on it, Ctrl-C.
    """
    images = images.clone() if images.is_inference() else images
    with signals_wait(), torch.inference_mode(False), torch.set_grad_enabled(recorder.gradients):
        with changed(frozen(network)), seen_by(recorder):
            return interruptible(lambda: network(images))


def bare(network: nn.Module) -> nn.Module:
    """The module that Python runs: wrappers around all of it are opened, the unseen is refused.

    Opened are those of `torch.compile`, of running in parallel and of averaged weights.
    """
    while True:
        if isinstance(network, torch.jit.ScriptModule):
            raise UnsupportedNetworkError(
                "TorchScript runs out of sight of Python; pass the module that it was made from"
            )
        inner = getattr(network, "_orig_mod", None)
        if isinstance(network, _WRAPPERS):
            inner = network.module
        if not isinstance(inner, nn.Module):
            return network
        network = inner


_WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
