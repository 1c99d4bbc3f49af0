"""Weights files in the layouts of other libraries, through timm's own conversions."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from helpers import redraw
from safetensors.torch import save_file
from torch import nn
from weights_files import SMALL, TINY, as_jax, assert_same, loaded, small

from rollout import explain, load_model


@pytest.fixture
def network() -> nn.Module:
    return small()


# Layouts of other libraries


def test_official_dinov2_with_registers(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    network = small(name, img_size=56, num_classes=0)
    state = network.state_dict()
    classes = torch.randn(1, 1, 24)  # there the position of the class token is a parameter
    official = {**state, "register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 24)}
    official["cls_token"] = state["cls_token"] - classes
    official["pos_embed"] = torch.cat([classes, state["pos_embed"]], dim=1)
    torch.save({key: official[key] for key in official if key != "reg_token"}, tmp_path / "a.pth")
    found = loaded(tmp_path / "a.pth", name, image_size=56)
    torch.testing.assert_close(dict(found), dict(state))
    assert loaded(tmp_path / "a.pth", name, image_size=(28, 70))["pos_embed"].shape == (1, 10, 24)


def test_a_masked_autoencoder_with_its_decoder(tmp_path: Path) -> None:
    network = small(num_classes=0)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 197, 8),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        "decoder_embed.bias": torch.zeros(8),
    }
    torch.save({"model": {**network.state_dict(), **decoder}}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="3 tensors of .* no part .* left out: decoder_pos_embed"):
        assert_same(loaded(tmp_path / "a.pth"), network.state_dict())


def test_self_distillation_with_its_heads(tmp_path: Path) -> None:
    student, teacher = small(num_classes=0).state_dict(), small(num_classes=0).state_dict()
    both = {
        side: {
            **{f"module.backbone.{name}": value for name, value in state.items()},
            "module.head.mlp.0.weight": torch.zeros(2, 24),
        }
        for side, state in (("student", student), ("teacher", teacher))
    }
    torch.save(both, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="'teacher.module.backbone' were taken|module.head.mlp"):
        assert_same(loaded(tmp_path / "a.pth"), teacher)


def test_beit_with_what_training_needs(tmp_path: Path) -> None:
    name = "beit_base_patch16_224"
    network = small(name)
    extra = {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(9, 24)}
    index = {"blocks.0.attn.relative_position_index": torch.zeros(197, 197, dtype=torch.long)}
    torch.save({"model": {**network.state_dict(), **extra, **index}}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="lm_head.weight.*mask_token"):
        assert_same(loaded(tmp_path / "a.pth", name), network.state_dict())


def test_official_deit3(tmp_path: Path) -> None:
    name = "deit3_small_patch16_224"
    network = small(name)
    official = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for key, value in network.state_dict().items()
    }
    assert official.keys() != network.state_dict().keys()
    torch.save({"model": official}, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth", name), network.state_dict())


def test_the_tower_of_an_open_clip_network(tmp_path: Path) -> None:
    network = small(num_classes=0)
    state = {f"visual.trunk.{name}": value for name, value in network.state_dict().items()}
    state["text.token_embedding.weight"] = torch.zeros(9, 8)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="left out: text.token_embedding.weight"):
        assert_same(loaded(tmp_path / "a.safetensors"), network.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_the_tower_of_clip_behind_any_prefix(prefix: str, tmp_path: Path) -> None:
    """OpenAI's names come from open_clip's own network; timm's conversion knows them."""
    name = "vit_base_patch32_clip_224"
    options = {"embed_dim": 64, "depth": 2, "num_heads": 1}
    vision = {"image_size": 224, "layers": 2, "width": 64, "head_width": 64, "patch_size": 32}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    clip = redraw(open_clip.CLIP(24, vision, text, quick_gelu=False))
    state = {prefix + key: value for key, value in clip.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    model = load_model(name, checkpoint=tmp_path / "a.pth", device="cpu", **options)
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(
        model.network(images), clip.eval().encode_image(images), atol=1e-3, rtol=1e-3
    )
    assert model.num_classes == 0  # an embedding
    assert explain(model, images, score=lambda output: output[:, 3]).map.shape == (2, 7, 7)


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_an_original_file_of_jax(prefix: str, network: nn.Module, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **as_jax(network, prefix))
    model = load_model(TINY, checkpoint=tmp_path / "a.npz", **SMALL)
    assert_same(model.network.state_dict(), network.state_dict())
    assert model.num_classes == 3
    other = loaded(tmp_path / "a.npz", image_size=(64, 96), num_classes=0)
    assert other["pos_embed"].shape == (1, 25, 24) and "head.weight" not in other


@pytest.mark.parametrize("change", ["more blocks", "fewer blocks", "wider"])
def test_a_file_of_jax_that_does_not_fit(change: str, tmp_path: Path) -> None:
    other = {"more blocks": {"depth": 3}, "fewer blocks": {"depth": 1}, "wider": {"embed_dim": 48}}
    np.savez(tmp_path / "a.npz", **as_jax(small(**other[change])))
    with pytest.raises(ValueError, match=f"a.npz does not fit '{TINY}'.*name the architecture"):
        loaded(tmp_path / "a.npz")
