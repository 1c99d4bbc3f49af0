"""Pretrained weights by the real ways, on local files: the Hugging Face cache, and torch.hub."""

import timm
import torch
from helpers import fill_cache
from huggingface_hub import constants
from PIL import Image
from torch import nn
from torch.testing import assert_close

from rollout import explain, load_model, wrap_model

NAME = "deit_tiny_patch16_224"


def trained_network() -> nn.Module:
    network = timm.create_model(NAME)
    nn.init.trunc_normal_(network.head.weight, std=0.02)
    return network


def test_weights_in_the_hubs_cache_are_found_without_a_network(tmp_path, monkeypatch):
    network = trained_network()
    fill_cache(tmp_path, f"timm/{NAME}.fb_in1k", network)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = load_model(NAME, device="cpu")
    for name, tensor in model.network.state_dict().items():
        assert_close(tensor, network.state_dict()[name], rtol=0, atol=0)
    assert model.labels is not None and model.class_index("Egyptian cat") == 285
    assert_close(torch.tensor(model.mean), torch.tensor([0.485, 0.456, 0.406]))


def test_a_module_of_torch_hub_is_wrapped_and_explained(tmp_path):
    """As torch.hub.load("facebookresearch/deit:main", ...), from a local repository."""
    torch.save({"model": trained_network().state_dict()}, tmp_path / "weights.pth")
    (tmp_path / "hubconf.py").write_text(
        "import timm, torch\n"
        "dependencies = ['torch', 'timm']\n"
        "def deit_tiny_patch16_224(pretrained=False, **options):\n"
        "    network = timm.create_model('deit_tiny_patch16_224', **options)\n"
        "    if pretrained:\n"
        f"        state = torch.load({str(tmp_path / 'weights.pth')!r}, weights_only=True)\n"
        "        network.load_state_dict(state['model'])\n"
        "    return network\n"
    )
    network = torch.hub.load(str(tmp_path), NAME, pretrained=True, source="local")
    model = wrap_model(network)
    explanation = explain(model, Image.new("RGB", (300, 200), "red"), target="tabby")
    assert explanation.map.shape == (1, 14, 14)
    assert explanation.labels == ("tabby, tabby cat",)
