"""What several tests need: attention that sums to one, and small networks with real structure."""

import timm
import torch
from torch import Tensor, nn


def random_attention(
    batch: int = 2, heads: int = 3, tokens: int = 5, *, peak: float = 1.0
) -> Tensor:
    """Attention of one block, (batch, heads, tokens, tokens); a higher peak is more decided."""
    return (peak * torch.randn(batch, heads, tokens, tokens)).softmax(dim=-1)


def small_vit(**options: object) -> nn.Module:
    """A ViT of 3 blocks on images of 32 x 48 pixels: 24 patches and a class token, 7 classes.

    The weights are large enough that attention is decided and no gradient vanishes.
    """
    defaults = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    network = timm.models.VisionTransformer(**{**defaults, "num_classes": 7, **options})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()
