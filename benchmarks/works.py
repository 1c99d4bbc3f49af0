"""The pieces of work that are measured: ours, vit-explain's, and the least anybody has to do."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import timm
import torch
from timm.layers import LayerScale
from torch import Tensor, nn

from rollout import attention_rollout, gradient_rollout, record_attention, wrap_model
from rollout.maths.token_layout import TokenLayout

MODELS = {
    "DeiT-Tiny": ("deit_tiny_patch16_224", {}),
    "ViT-B/16": ("vit_base_patch16_224", {}),
    "ViT-S/14, 518 px": ("vit_small_patch14_dinov2", {"img_size": 518, "num_classes": 1000}),
    "ViT-S/16, 1024 px, 2 blocks": ("vit_small_patch16_224", {"img_size": 1024, "depth": 2}),
    "ViT-S/16, 2048 px, 2 blocks": ("vit_small_patch16_224", {"img_size": 2048, "depth": 2}),
}
TARGET = 0
DISCARD_RATIO = 0.9
VIT_EXPLAIN = os.environ.get("VIT_EXPLAIN")

Call = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A network with random weights and random images, (batch, channels, height, width)."""

    network: nn.Module
    layout: TokenLayout
    images: Tensor

    @cached_property
    def frozen(self) -> nn.Module:
        """A copy whose parameters take no gradient."""
        return deepcopy(self.network).requires_grad_(False)

    @cached_property
    def unfused(self) -> nn.Module:
        """A copy that builds its attention probabilities: what vit-explain can see."""
        network = deepcopy(self.network)
        for block in network.blocks:
            block.attn.fused_attn = False
        return network

    def with_batch(self, batch: int) -> "Subject":
        return replace(self, images=torch.randn(batch, *self.images.shape[1:]))


@cache
def load_subject(model: str) -> Subject:
    """One of MODELS with one image, the same at every call."""
    torch.manual_seed(0)
    name, options = MODELS[model]
    network = timm.create_model(name, pretrained=False, **options)
    # Gradients vanish under a LayerScale of 1e-5 or a classifier of zeros, and so might their cost.
    nn.init.trunc_normal_(network.head.weight, std=0.02)
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
    wrapped = wrap_model(network)
    image = torch.randn(1, 3, *network.patch_embed.img_size)
    return Subject(wrapped.network, wrapped.layout, image)


def vanilla_rollout(subject: Subject) -> Call:
    """What `explain(method="attention_rollout")` does between the image and the map."""

    def call() -> Tensor:
        record = record_attention(subject.network, subject.images, gradients=False)
        relevance = attention_rollout(
            record.attentions,
            head_fusion="max",
            discard_ratio=DISCARD_RATIO,
            readout=subject.layout.readout,
        )
        return subject.layout.to_grid(relevance)

    return call


def rollout_of_gradients(subject: Subject) -> Call:
    """What `explain(method="gradient_rollout")` does between the image and the map."""

    def call() -> Tensor:
        record = record_attention(subject.network, subject.images)
        gradients = record.gradients(TARGET, retain_graph=False)
        relevance = gradient_rollout(
            record.attentions,
            gradients,
            head_fusion="mean",
            discard_ratio=DISCARD_RATIO,
            readout=subject.layout.readout,
        )
        return subject.layout.to_grid(relevance)

    return call


def forward(subject: Subject) -> Call:
    """The floor of vanilla rollout: the bare network."""
    return torch.no_grad()(lambda: subject.network(subject.images))


def forward_and_backward(subject: Subject) -> Call:
    """The floor of gradient rollout: one class's gradient, down to the input, parameters frozen."""
    images = subject.images.clone().requires_grad_()
    return lambda: torch.autograd.grad(subject.frozen(images)[:, TARGET].sum(), images)


def vit_explain_vanilla(subject: Subject) -> Call:
    """The published attention rollout."""
    published = _vit_explain("vit_rollout").VITAttentionRollout
    network = _without_hooks(subject.unfused)
    roll = published(network, head_fusion="max", discard_ratio=DISCARD_RATIO)
    return lambda: roll(subject.images)


def vit_explain_gradient(subject: Subject) -> Call:
    """The published gradient rollout (it knows the mean over heads only)."""
    published = _vit_explain("vit_grad_rollout").VITAttentionGradRollout
    warnings.filterwarnings("ignore", "Using a non-full backward hook")  # it does, as published
    roll = published(_without_hooks(subject.unfused), discard_ratio=DISCARD_RATIO)
    return lambda: roll(subject.images, TARGET)


def _without_hooks(network: nn.Module) -> nn.Module:
    """vit-explain's hooks stay behind and fill the lists of earlier calls; start clean."""
    for module in network.modules():
        module._forward_hooks.clear()
        module._backward_hooks.clear()
    return network


def _vit_explain(name: str) -> ModuleType:
    """A module of the checkout, unchanged, outside of any package."""
    file = Path(str(VIT_EXPLAIN)) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # OpenCV draws its pictures; the arithmetic that is measured runs without.
    with patch.dict(sys.modules, {"cv2": ModuleType("cv2")}):
        spec.loader.exec_module(module)
    return module
