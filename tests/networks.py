"""Small networks of other libraries with random weights, and how each is laid out."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
import transformers
from helpers import redraw
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from rollout.maths.token_layout import TokenLayout

THINGS = {index: f"thing {index}" for index in range(5)}
TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TINY |= {"intermediate_size": 32, "patch_size": 8}
WIDE: dict[str, Any] = {**TINY, "image_size": (32, 48), "id2label": THINGS}
SQUARE: dict[str, Any] = {**WIDE, "image_size": 32}
TEXT = {"vision_config": SQUARE, "text_config": {**TINY, "vocab_size": 50, "bos_token_id": 0}}
TEXT["text_config"] |= {"eos_token_id": 1, "pad_token_id": 1}  # type: ignore[operator]

Make = Callable[..., nn.Module]


def hf(network: str, config: str, options: dict[str, Any], **more: Any) -> Make:
    """A maker of a Hugging Face network with the given implementation of attention."""

    def make(implementation: str = "eager") -> nn.Module:
        settings = {**options, **more, "attn_implementation": implementation}
        return getattr(transformers, network)(getattr(transformers, config)(**settings))

    return make


# A maker, the layout, and the number of classes.
HUGGING_FACE: dict[str, tuple[Make, TokenLayout, int]] = {
    "ViT": (
        hf("ViTForImageClassification", "ViTConfig", WIDE),
        TokenLayout((4, 6), 1, "token"),
        5,
    ),
    "ViT, pooled": (hf("ViTModel", "ViTConfig", WIDE), TokenLayout((4, 6), 1, "token"), 0),
    "ViT, tokens": (hf("ViTMSNModel", "ViTMSNConfig", WIDE), TokenLayout((4, 6), 1, "token"), 0),
    "DeiT": (
        hf("DeiTForImageClassification", "DeiTConfig", WIDE),
        TokenLayout((4, 6), 2, "token"),
        5,
    ),
    "DeiT, distilled": (
        hf("DeiTForImageClassificationWithTeacher", "DeiTConfig", WIDE),
        TokenLayout((4, 6), 2, "distilled"),
        5,
    ),
    "DINOv2": (
        hf("Dinov2ForImageClassification", "Dinov2Config", SQUARE, mlp_ratio=2),
        TokenLayout((4, 4), 1, "token_avg"),
        5,
    ),
    "DINOv2, registers": (
        hf(
            "Dinov2WithRegistersForImageClassification",
            "Dinov2WithRegistersConfig",
            SQUARE,
            num_register_tokens=2,
        ),
        TokenLayout((4, 4), 3, "token_avg"),
        5,
    ),
    "DINOv3": (
        hf("DINOv3ViTModel", "DINOv3ViTConfig", SQUARE, num_register_tokens=3),
        TokenLayout((4, 4), 4, "token"),
        0,
    ),
    "CLIP": (hf("CLIPVisionModel", "CLIPVisionConfig", SQUARE), TokenLayout((4, 4), 1, "token"), 0),
    "CLIP, projected": (
        hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", SQUARE, projection_dim=16),
        TokenLayout((4, 4), 1, "token"),
        0,
    ),
    "CLIP, classes": (
        hf("CLIPForImageClassification", "CLIPConfig", TEXT, id2label=THINGS),
        TokenLayout((4, 4), 1, "avg"),
        5,
    ),
    "SigLIP": (
        hf("SiglipVisionModel", "SiglipVisionConfig", SQUARE),
        TokenLayout((4, 4), 0, "map"),
        0,
    ),
    "SigLIP, classes": (  # has the pooling layer, and does not read it
        hf("SiglipForImageClassification", "SiglipConfig", TEXT, id2label=THINGS),
        TokenLayout((4, 4), 0, "avg"),
        5,
    ),
    "AIMv2": (
        hf("Aimv2VisionModel", "Aimv2VisionConfig", SQUARE),
        TokenLayout((4, 4), 0, "map"),
        0,
    ),
    "BEiT": (
        hf(
            "BeitForImageClassification",
            "BeitConfig",
            WIDE,
            use_relative_position_bias=True,
            use_mean_pooling=True,
        ),
        TokenLayout((4, 6), 1, "avg"),
        5,
    ),
    "Data2Vec": (
        hf("Data2VecVisionForImageClassification", "Data2VecVisionConfig", SQUARE),
        TokenLayout((4, 4), 1, "avg"),
        5,
    ),
    "I-JEPA": (
        hf("IJepaForImageClassification", "IJepaConfig", WIDE),
        TokenLayout((4, 6), 0, "avg"),
        5,
    ),
}


def tower(**options: Any) -> Make:
    """A maker of open_clip's own image tower."""
    small = {"image_size": (32, 48), "patch_size": 8, "width": 24, "layers": 2, "heads": 3}
    return lambda: VisionTransformer(**{**small, "mlp_ratio": 2.0, "output_dim": 16, **options})


def two_towers(kind: type, **vision: Any) -> nn.Module:
    text = {"context_length": 8, "vocab_size": 50, "width": 24, "heads": 3, "layers": 1}
    return kind(embed_dim=16, vision_cfg=vision, text_cfg=text)


CONFIG = {"layers": 2, "width": 24, "head_width": 8, "patch_size": 8, "image_size": (32, 48)}
TIMM = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160}
POOLER = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2}
OTHERS: dict[str, tuple[Make, TokenLayout, int]] = {
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=5),
        TokenLayout((4, 4), 1, "token"),
        5,
    ),
    "open_clip": (tower(), TokenLayout((4, 6), 1, "token"), 0),
    "open_clip, average": (tower(pool_type="avg"), TokenLayout((4, 6), 1, "avg"), 0),
    "open_clip, tokens": (tower(pool_type="none"), TokenLayout((4, 6), 1, "token"), 0),
    "open_clip, pooler": (tower(**POOLER), TokenLayout((4, 6), 1, "map"), 0),
    "open_clip, two poolers": (
        tower(**POOLER | {"attentional_pool": "cascade", "output_dim": 24}),
        TokenLayout((4, 6), 1, "map"),
        0,
    ),
    "open_clip, norms": (
        tower(block_type="custom", qk_norm=True),
        TokenLayout((4, 6), 1, "token"),
        0,
    ),
    "open_clip, whole": (lambda: two_towers(CLIP, **CONFIG), TokenLayout((4, 6), 1, "token"), 0),
    "open_clip, custom": (
        lambda: two_towers(CustomTextCLIP, **CONFIG).visual,
        TokenLayout((4, 6), 1, "token"),
        0,
    ),
    "open_clip, timm": (
        lambda: two_towers(CustomTextCLIP, **TIMM, timm_pool="token").visual,
        TokenLayout((10, 10), 1, "token"),
        0,
    ),
}
ALL = HUGGING_FACE | OTHERS


def made(name: str, *implementation: str) -> nn.Module:
    """The same weights for every implementation of attention."""
    torch.manual_seed(0)
    return redraw(ALL[name][0](*implementation)).eval()


def photos_for(name: str) -> Tensor:
    rows, columns = ALL[name][1].grid_size
    patch = 16 if "timm" in name else 8
    return torch.randn(2, 3, patch * rows, patch * columns)
