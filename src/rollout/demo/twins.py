"""The same Vision Transformer in three libraries: timm's weights under the others' names."""

from collections.abc import Mapping
from typing import Any

import torchvision
from timm.models import VisionTransformer
from torch import Tensor, nn

_TORCHVISION = {
    "patch_embed.proj": "conv_proj",
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "blocks.": "encoder.layers.encoder_layer_",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
}
_HUGGING_FACE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "blocks.": "vit.layers.",
    "attn.": "attention.",
    "attention.proj": "attention.o_proj",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "norm.": "vit.layernorm.",
    "head.": "classifier.",
}


def torchvision_twin(network: VisionTransformer) -> nn.Module:
    """torchvision's network with the weights of a plain square ViT of timm."""
    size, patch = network.patch_embed.img_size[0], network.patch_embed.patch_size[0]
    width, heads, hidden = _sizes(network)
    classes = network.num_classes
    twin = torchvision.models.VisionTransformer(
        size, patch, len(network.blocks), heads, width, hidden, num_classes=classes
    )
    twin.load_state_dict(_renamed(network.state_dict(), _TORCHVISION))
    return twin


def hugging_face_config(network: VisionTransformer) -> dict[str, Any]:
    """The sizes of a plain square ViT of timm, as arguments for `transformers.ViTConfig`."""
    width, heads, hidden = _sizes(network)
    norm: Any = network.norm
    return {
        "image_size": network.patch_embed.img_size[0],
        "patch_size": network.patch_embed.patch_size[0],
        "hidden_size": width,
        "num_hidden_layers": len(network.blocks),
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "layer_norm_eps": norm.eps,
    }


def hugging_face_state(network: VisionTransformer) -> dict[str, Tensor]:
    """The weights of a plain ViT of timm, as `transformers.ViTForImageClassification` has them."""
    return _renamed(_split(network.state_dict()), _HUGGING_FACE)


def _sizes(network: VisionTransformer) -> tuple[int, int, int]:
    """Width, heads, and the width inside the blocks' perceptrons."""
    block: Any = network.blocks[0]
    return network.embed_dim, block.attn.num_heads, block.mlp.fc1.out_features


def _split(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value apart."""
    split = {key: value for key, value in state.items() if ".qkv." not in key}
    for key in state.keys() - split.keys():
        parts = zip("qkv", state[key].chunk(3), strict=True)
        split |= {key.replace("qkv", f"{letter}_proj"): part for letter, part in parts}
    return split


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under new names; parts of names are replaced one after the other."""
    renamed = {}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        renamed[key] = value
    return renamed
