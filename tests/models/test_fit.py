"""From a weights file to a network: every layout that timm can convert, and nothing left random."""

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import redraw
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rollout import load_model

TINY = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "device": "cpu"}


def small(name: str = TINY, **options: Any) -> nn.Module:
    return redraw(timm.create_model(name, **{**SMALL, "num_classes": 3, **options}))


@pytest.fixture
def network() -> nn.Module:
    return small()


def loaded(path: Path, name: str = TINY, **options: Any) -> dict[str, Tensor]:
    return load_model(name, checkpoint=path, **{**SMALL, **options}).network.state_dict()


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(dict(found), dict(expected), rtol=0, atol=0)


# Prefixes and tables

PREFIXES = [
    "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "teacher.backbone.",
    "base_model.model.", "a.b.c.blocks.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("table", ["", "state_dict", "params", "module", "some.thing"])
def test_any_prefix_in_any_table(
    prefix: str, table: str, network: nn.Module, tmp_path: Path
) -> None:
    content: Any = {prefix + name: value for name, value in network.state_dict().items()}
    for key in reversed(table.split(".") if table else []):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(content, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth"), network.state_dict())


def test_blocks_of_a_network_are_not_taken_for_the_network(
    network: nn.Module, tmp_path: Path
) -> None:
    torch.save({"blocks": network.blocks.state_dict(), "all": network.state_dict()}, tmp_path / "a")
    assert_same(loaded(tmp_path / "a"), network.state_dict())


@pytest.mark.parametrize("raw", ["state_dict", "model", "student"])
@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "teacher", "ema.module"])
@pytest.mark.parametrize("order", [1, -1])
def test_averaged_weights_are_taken_as_timm_takes_them_and_it_is_said(
    raw: str, averaged: str, order: int, tmp_path: Path
) -> None:
    pair = {raw: small().state_dict(), averaged: small().state_dict()}
    assert not pair[raw]["head.weight"].equal(pair[averaged]["head.weight"])
    torch.save({key: pair[key] for key in [*pair][::order]}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match=f"averaged weights '{averaged}' were taken.*'raw'"):
        assert_same(loaded(tmp_path / "a.pth"), pair[averaged])
    for weights, expected in (("raw", raw), ("averaged", averaged), (raw, raw)):
        assert_same(loaded(tmp_path / "a.pth", weights=weights), pair[expected])
    if (raw, averaged) == ("state_dict", "state_dict_ema"):
        by_timm = timm.create_model(
            TINY, num_classes=3, checkpoint_path=str(tmp_path / "a.pth"), **SMALL
        )
        assert_same(by_timm.state_dict(), pair[averaged])


def test_weights_that_a_file_does_not_hold(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": network.state_dict()}, tmp_path / "a.pth")
    for weights in ("averaged", "ema"):
        with pytest.raises(ValueError, match=f"no weights='{weights}'; it holds 'model'"):
            loaded(tmp_path / "a.pth", weights=weights)
    with pytest.raises(ValueError, match="weights='raw' chooses among those of a file"):
        load_model(TINY, weights="raw")


def test_of_several_networks_the_choice_is_named(tmp_path: Path) -> None:
    first, second = small().state_dict(), small().state_dict()
    torch.save({"best": first, "last": second}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="the weights 'best' were taken, not 'last'; weights='la"):
        assert_same(loaded(tmp_path / "a.pth"), first)
    assert_same(loaded(tmp_path / "a.pth", weights="last"), second)


def test_what_stands_beside_the_network_is_left_out_and_named(
    network: nn.Module, tmp_path: Path
) -> None:
    lightning = {f"net.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {**lightning, "loss.weight": torch.ones(3)}}, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="1 tensors of .* left out: loss.weight$"):
        assert_same(loaded(tmp_path / "a.ckpt"), network.state_dict())


# What a file says of itself


def test_the_file_names_its_architecture_and_its_classes(
    network: nn.Module, tmp_path: Path
) -> None:
    labels = ["ant", "bee", "cow"]
    torch.save(
        {"arch": TINY, "state_dict": network.state_dict(), "classes": labels}, tmp_path / "a"
    )
    model = load_model(checkpoint=tmp_path / "a", **SMALL)
    assert model.name == TINY and model.labels == tuple(labels) and model.class_index("bee") == 1
    own = load_model(checkpoint=tmp_path / "a", labels=["x", "y", "z"], **SMALL)
    assert own.labels == ("x", "y", "z")
    with pytest.raises(ValueError, match="got 2 labels for a network with 3 classes"):
        load_model(checkpoint=tmp_path / "a", labels=["x", "y"], **SMALL)
    with pytest.warns(
        UserWarning, match=f"are of '{TINY}'; they were loaded as 'deit_tiny_patch16"
    ):
        loaded(tmp_path / "a", "deit_tiny_patch16_224")


def test_a_file_that_names_nothing(network: nn.Module, tmp_path: Path) -> None:
    arguments = argparse.Namespace(model="mine")
    torch.save({"model": network.state_dict(), "labels": ["a"], "args": arguments}, tmp_path / "a")
    with pytest.raises(ValueError, match="name an architecture .--model.: .* names none that timm"):
        load_model(checkpoint=tmp_path / "a")
    with pytest.warns(UserWarning, match="names 1 classes, its classifier has 3: .* not used"):
        assert load_model(TINY, checkpoint=tmp_path / "a", **SMALL).labels is None


# Other sizes and channels: timm reads the same file by itself, and is the authority


@pytest.mark.parametrize("image_size", [None, 64, (96, 160)])
@pytest.mark.parametrize("channels", [None, 1, 2, 4, 13])
@pytest.mark.filterwarnings("ignore:VisionTransformer takes images of")
def test_position_embeddings_and_channels_are_converted_as_timm_does(
    image_size: Any, channels: int | None, network: nn.Module, tmp_path: Path
) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    options = {"in_chans": channels, "num_classes": 3, **SMALL}
    overlay = {"file": str(tmp_path / "a.safetensors"), "num_classes": 3}
    expected = timm.create_model(
        TINY, pretrained=True, pretrained_cfg_overlay=overlay, img_size=image_size or 224, **options
    )
    model = load_model(
        TINY, checkpoint=tmp_path / "a.safetensors", image_size=image_size, **options
    )
    assert_same(model.network.state_dict(), expected.state_dict())
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else image_size or (224,) * 2
    )
    assert model.layout.grid_size == (height // 16, width // 16)
    assert model.black_image().shape == (1, channels or 3, height, width)


def test_position_embeddings_are_interpolated(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    found = loaded(tmp_path / "a.safetensors", image_size=(96, 160))["pos_embed"]
    grid = network.pos_embed.detach()[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, (6, 10), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, 1:], resized.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[:, :1], network.pos_embed.detach()[:, :1])


@pytest.mark.parametrize("name", [TINY, "beit_base_patch16_224"])
def test_the_size_that_the_weights_were_trained_at_is_the_default(
    name: str, tmp_path: Path
) -> None:
    network = small(name, img_size=64)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    model = load_model(name, checkpoint=tmp_path / "a.safetensors", **SMALL)
    assert model.layout.grid_size == (4, 4) and model.black_image().shape[-2:] == (64, 64)
    assert_same(model.network.state_dict(), network.state_dict())


def test_a_file_of_wide_images_needs_their_size(tmp_path: Path) -> None:
    network = small(img_size=(64, 96))
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    message = r"pos_embed is \(1, 25, 24\), expected .*; give image_size=\(height, width\), the pix"
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path / "a.safetensors")
    assert_same(loaded(tmp_path / "a.safetensors", image_size=(64, 96)), network.state_dict())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.filterwarnings("ignore:VisionTransformer takes images of")
def test_a_file_decides_its_channels(channels: int, tmp_path: Path) -> None:
    network = small(in_chans=channels)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    assert_same(loaded(tmp_path / "a.safetensors"), network.state_dict())


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


# Refused


@pytest.mark.parametrize("asked", [5, 1000])
def test_another_number_of_classes_would_be_random(
    asked: int, network: nn.Module, tmp_path: Path
) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"classifier of 3 classes; num_classes={asked} would mak"):
        loaded(tmp_path / "a.safetensors", num_classes=asked)
    features = loaded(tmp_path / "a.safetensors", num_classes=0)
    assert "head.weight" not in features and features.items()
    save_file(small(num_classes=0).state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=f"has no classifier; num_classes={asked}"):
        loaded(tmp_path / "b.safetensors", num_classes=asked)


@pytest.mark.parametrize("shape", [(), (3,), (3, 24, 2)])
def test_a_classifier_of_a_strange_shape(
    shape: tuple[int, ...], network: nn.Module, tmp_path: Path
) -> None:
    state = {**network.state_dict(), "head.weight": torch.zeros(shape)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit|no classifier"):
        loaded(tmp_path / "a.pth", num_classes=3)


def test_patches_of_another_size_are_not_resampled_unasked(tmp_path: Path) -> None:
    network = small(patch_size=8, img_size=112)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match="patches of 8 x 8 pixels, expected 16 x 16; name the arch"
    ):
        loaded(tmp_path / "a.safetensors")
    assert_same(loaded(tmp_path / "a.safetensors", patch_size=8), network.state_dict())


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("vit.embeddings.patch_embeddings.projection.weight", "from_pretrained"),
        ("encoder.layers.encoder_layer_0.ln_1.weight", "torchvision"),
        ("transformer.resblocks.0.ln_1.weight", "open_clip.create_model"),
        ("base_model.model.blocks.0.attn.qkv.lora_A.weight", "merge_and_unload"),
    ],
)
def test_files_of_other_libraries_name_the_way_that_works(
    name: str, cure: str, tmp_path: Path
) -> None:
    save_file({name: torch.zeros(2, 2), "x.y": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"does not fit '{TINY}': .* is missing.*{cure}"):
        loaded(tmp_path / "a.safetensors")


def test_an_adapter_is_not_passed_over(network: nn.Module, tmp_path: Path) -> None:
    state = {f"base_model.model.{name}": value for name, value in network.state_dict().items()}
    state["base_model.model.blocks.0.attn.qkv.lora_A.weight"] = torch.zeros(2, 24)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="lora_A.weight is not in the arch.*merge_and_unload"):
        loaded(tmp_path / "a.safetensors")


def test_siglip_with_another_pooling_is_not_half_random(tmp_path: Path) -> None:
    name = "vit_base_patch16_siglip_224"  # for these timm does not load strictly
    save_file(small(name, num_classes=0).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="fc_norm.weight is missing; leave global_pool"):
        loaded(tmp_path / "a.safetensors", name, global_pool="avg", fc_norm=True)


def test_several_threads_load_and_leave_the_process_as_it_was(
    network: nn.Module, tmp_path: Path
) -> None:
    arguments = argparse.Namespace(lr=0.1)  # read with a safe global that lasts for one reading
    torch.save({"model": network.state_dict(), "args": arguments}, tmp_path / "a.pth")
    filters, safe = list(warnings.filters), torch.serialization.get_safe_globals()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(loaded, [tmp_path / "a.pth"] * 12))
    for state in found:
        assert_same(state, network.state_dict())
    assert warnings.filters == filters and torch.serialization.get_safe_globals() == safe


def test_the_weights_are_not_kept_twice(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    model = load_model(TINY, checkpoint=tmp_path / "a.safetensors", **SMALL)
    held = str(model.network.pretrained_cfg) + str(model.network.default_cfg)
    assert "tensor" not in held


def test_views_into_one_storage(network: nn.Module, tmp_path: Path) -> None:
    """As sharded training saves them; each copied with all that it looks into would be too much."""
    flat = torch.cat([value.flatten() for value in network.state_dict().values()])
    parts = flat.split([value.numel() for value in network.state_dict().values()])
    state = {
        name: part.view(value.shape)
        for part, (name, value) in zip(parts, network.state_dict().items(), strict=True)
    }
    torch.save(state, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth"), network.state_dict())
