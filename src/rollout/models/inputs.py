"""Where a network takes its images, and in which precision."""

import torch
from torch import nn


def input_device(network: nn.Module) -> torch.device:
    """The device of its parameters, or the one that offloaded weights are brought to."""
    for module in network.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)  # accelerate
        if device is not None:
            return torch.device(device)
    return next((one.device for one in network.parameters()), torch.device("cpu"))


def input_dtype(network: nn.Module) -> torch.dtype:
    """That of the first layer with weights: a parameter before it may be kept in another."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    weights = [module.weight for module in network.modules() if isinstance(module, layers)]
    for weight in (*weights, *network.parameters()):
        if isinstance(weight, torch.Tensor) and weight.is_floating_point():
            return weight.dtype
    return torch.float32
