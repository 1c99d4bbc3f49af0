"""From a weights file to a network: every layout that timm can convert, and nothing left random."""

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from weights_files import SMALL, TINY, assert_same, loaded, small

from rollout import load_model


@pytest.fixture
def network() -> nn.Module:
    return small()


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
