"""What tests of weights files need: small networks, their weights in a file and back out of it."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from helpers import redraw
from torch import Tensor, nn

from rollout import load_model

TINY = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "device": "cpu"}


def small(name: str = TINY, **options: Any) -> nn.Module:
    return redraw(timm.create_model(name, **{**SMALL, "num_classes": 3, **options}))


def loaded(path: Path, name: str = TINY, **options: Any) -> dict[str, Tensor]:
    return load_model(name, checkpoint=path, **{**SMALL, **options}).network.state_dict()


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(dict(found), dict(expected), rtol=0, atol=0)


def as_jax(network: nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    """The weights as Google's training code names and lays them out."""
    w = {name: value.numpy() for name, value in network.state_dict().items()}
    heads, width = network.blocks[0].attn.num_heads, network.embed_dim
    out = {
        "embedding/kernel": w["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": w["patch_embed.proj.bias"],
        "cls": w["cls_token"],
        "Transformer/posembed_input/pos_embedding": w["pos_embed"],
        "Transformer/encoder_norm/scale": w["norm.weight"],
        "Transformer/encoder_norm/bias": w["norm.bias"],
        "head/kernel": w["head.weight"].T,
        "head/bias": w["head.bias"],
    }
    for i in range(len(network.blocks)):
        block, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            out[f"{theirs}LayerNorm_{number}/scale"] = w[f"{block}{norm}.weight"]
            out[f"{theirs}LayerNorm_{number}/bias"] = w[f"{block}{norm}.bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            kernel = w[f"{block}attn.qkv.weight"][rows].T
            out[f"{attention}{part}/kernel"] = kernel.reshape(width, heads, -1)
            out[f"{attention}{part}/bias"] = w[f"{block}attn.qkv.bias"][rows].reshape(heads, -1)
        out[f"{attention}out/kernel"] = w[f"{block}attn.proj.weight"].T.reshape(heads, -1, width)
        out[f"{attention}out/bias"] = w[f"{block}attn.proj.bias"]
        for j in range(2):
            out[f"{theirs}MlpBlock_3/Dense_{j}/kernel"] = w[f"{block}mlp.fc{j + 1}.weight"].T
            out[f"{theirs}MlpBlock_3/Dense_{j}/bias"] = w[f"{block}mlp.fc{j + 1}.bias"]
    return {prefix + name: value for name, value in out.items()}
