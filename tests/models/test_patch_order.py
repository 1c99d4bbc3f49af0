"""Patches behind a stem of convolutions, which reach tokens far and wide: their order is seen."""

import pytest
import timm
import torch
from helpers import left_as_it_was, redraw
from torch import Tensor, nn

from rollout import UnsupportedNetworkError, explain, wrap_model


def hybrid(std: float | None = None) -> nn.Module:
    """A ViT of one block on the 3 x 4 cells of a ResNet of 26 layers."""
    size = {"img_size": (96, 128), "embed_dim": 24, "num_heads": 3, "depth": 1, "num_classes": 5}
    network = timm.create_model("vit_small_resnet26d_224", **size)
    return (network if std is None else redraw(network, std)).eval()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("std", [None, 0.3])
def test_a_hybrid_is_taken_whatever_its_weights(std, seed):
    torch.manual_seed(seed)
    network = hybrid(std)
    with left_as_it_was(network):
        model = wrap_model(network)
    assert model.layout.grid_size == (3, 4) and model.layout.num_prefix_tokens == 1
    assert explain(model, torch.randn(2, 3, 96, 128), target=1).map.shape == (2, 3, 4)


class Reordered(nn.Module):
    """What stands between the patches' tokens and the blocks: another order of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, tokens: Tensor) -> Tensor:
        first, patches = tokens[:, :1], tokens[:, 1:]
        if self.kind == "behind":
            return torch.cat([patches, first], dim=1)
        if self.kind == "columns":
            patches = patches.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
        else:
            patches = patches.unflatten(1, (3, 4)).flip(2).flatten(1, 2)
        return torch.cat([first, patches], dim=1)


@pytest.mark.parametrize("kind", ["behind", "columns", "mirrored"])
@pytest.mark.parametrize("std", [None, 0.3])
def test_a_hybrid_whose_tokens_stand_elsewhere_is_refused(std, kind):
    network = hybrid(std)
    network.norm_pre = Reordered(kind)
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match="reaches token"):
        wrap_model(network)


def test_another_grid_of_as_many_patches_is_refused():
    with pytest.raises(UnsupportedNetworkError, match="reaches token"):
        wrap_model(hybrid(), grid_size=(2, 6))
