"""What the first attention is given: up to there, tokens are still the patches that made them.

So noise on one cell of the convolution that cuts the image up shows where its token stands, and
which axis is that of the tokens. Nothing overlaps behind it, as it may on the way from the image.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rollout.capture.attention_call import AttentionCall
from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.observation import bare, observe

Cell = tuple[int, int, int]  # of which convolution, the first being 1; row, column


class FirstAttention(AttentionRecorder):
    """Leaves the network's forward pass at the first attention; the rest is not computed.

    Attributes:
        value: what the attention is multiplied with, (batch, heads, tokens, channels) or with the
            heads in the batch; None where no attention was reached.
    """

    def __init__(self, network: nn.Module, shaken: Cell | None = None) -> None:
        super().__init__(network, gradients=False)
        self.value: Tensor | None = None
        self._shaken = shaken

    def _convolution(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        output = super()._convolution(func, *args, **kwargs)
        if self._shaken is not None and self._shaken[0] == self.convolutions:
            _, row, column = self._shaken
            output = output.clone()
            output[..., row, column] += _noise(output)
        return output

    def _keep(self, output: Tensor, value: Tensor, **inputs: Any) -> Tensor:
        self.value = value.detach()
        raise _Reached


class _Reached(BaseException):
    """Leaves the forward pass; a network may catch an Exception of its own."""


def first_attention(
    network: nn.Module, images: Tensor, shaken: Cell | None = None
) -> FirstAttention:
    """Run the network as far as its first attention.

    Args:
        shaken: a cell of a convolution's output that gets noise added, in all images.
    """
    network = bare(network)
    recorder = FirstAttention(network, shaken)
    try:
        observe(network, images, recorder)
    except _Reached:
        pass
    return recorder


def mark_channels(network: nn.Module, images: Tensor, recorder: AttentionRecorder) -> None:
    """Mark the calls that mix channels instead of tokens, where shapes do not say so.

    Cross-covariance attention multiplies (channels, channels) with (channels, tokens). Where a head
    has as many channels as there are patches, or more, that might as well be attention among
    tokens. A patch is in a single token, but in nearly all channels of it.
    """
    first, grid = next(iter(recorder.calls), None), recorder.convolution_size
    if first is None or grid is None or not _may_be_either(first, len(images), grid):
        return
    shaken = recorder.convolutions, grid[0] // 2, grid[1] // 2
    value = first_attention(network, images, shaken).value
    if value is None or value.numel() != first.value.numel():
        return
    change = (value.reshape(first.value.shape) - first.value).float().square().sum(dim=(0, 1))
    if _reached(change.sum(dim=0)) < _reached(change.sum(dim=1)) / 2:
        shapes = first.shape, first.value.shape
        recorder.calls = [
            replace(call, among_channels=(call.shape, call.value.shape) == shapes)
            for call in recorder.calls
        ]


def _may_be_either(call: AttentionCall, batch: int, grid_size: tuple[int, int]) -> bool:
    patches, value = grid_size[0] * grid_size[1], call.value
    per_image = len(call.shape) == value.dim() == 4 and call.shape[0] == batch
    wide = call.shape[-1] >= patches and value.shape[-1] >= patches
    return per_image and wide and not value.is_meta


def _reached(energies: Tensor) -> float:
    """How many entries hold the sum: 1 where one has it all, all where they are equal."""
    return float(energies.sum() ** 2 / energies.square().sum())


def _noise(output: Tensor) -> Tensor:
    """For one cell of a convolution's output, (batch, channels): always the same, and strong."""
    noise = torch.randn(output.shape[:2], generator=torch.Generator().manual_seed(0))
    return noise.to(output) * (1 + output.abs().amax())
