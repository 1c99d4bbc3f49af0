"""Where weights come from: timm, the hub, a file, the bundled demo; and what must be refused."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from rollout import explain, load_model
from rollout.models import load, networks, sources

TINY = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3}


def tiny(num_classes: int = 3) -> nn.Module:
    return timm.create_model(TINY, num_classes=num_classes, **SMALL)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return tiny().state_dict()


# From a checkpoint to a network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fine_tuned_checkpoint_decides_the_classes(
    dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"model": {name: value.to(dtype) for name, value in state.items()}}, tmp_path / "a")
    model = load_model(TINY, checkpoint=tmp_path / "a", device="cpu", **SMALL)
    assert model.num_classes == 3 and model.labels is None and model.dtype == torch.float32
    loaded = model.network.state_dict()
    torch.testing.assert_close(loaded, state, rtol=1e-2, atol=1e-3)


def test_a_checkpoint_of_another_architecture(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"does not fit 'deit_tiny.*is \(.*\), expected \(.*more"):
        load_model("deit_tiny_patch16_224", checkpoint=tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="does not fit 'resnet18': conv1.weight is missing;"):
        load_model("resnet18", checkpoint=tmp_path / "a.safetensors")


@pytest.mark.parametrize("change", ["missing", "renamed"])
def test_no_tensor_is_left_random_and_none_is_left_over(
    change: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    value = state.pop("blocks.1.attn.qkv.bias")
    if change == "renamed":
        state["blocks.1.attention.bias"] = value
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="blocks.1.attn.qkv.bias is missing"):
        load_model(TINY, checkpoint=tmp_path / "a.safetensors", **SMALL)


# timm and the hub


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov2_smal", "unknown model 'dinov2_smal'; did you mean dinov2_small"),
        ("vit_tiy_patch16_224", "unknown model .*did you mean vit_tiny_patch16_224, .*'demo'"),
        ("", "unknown model ''; see timm.list_models"),
        ("dmeo", "unknown model 'dmeo'.*'demo', which needs no download"),
        (f"{TINY}.no_such_tag", "timm cannot make .*Invalid pretrained tag"),
    ],
)
def test_names_that_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(name)


def test_an_architecture_without_pretrained_weights() -> None:
    with pytest.raises(ValueError, match="timm cannot make .*No pretrained weights exist"):
        load_model("vit_base_patch16_18x2_224", **SMALL)


def test_a_network_is_not_a_name() -> None:
    with pytest.raises(TypeError, match="must be a string, got Linear; wrap_model takes a network"):
        load_model(nn.Linear(2, 3))  # type: ignore[arg-type]


def test_an_option_that_the_architecture_does_not_know() -> None:
    with pytest.raises(ValueError, match="timm cannot make .*unexpected keyword argument 'colour'"):
        load_model(TINY, pretrained=False, colour="red")


def test_a_missing_local_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load_model(f"local-dir:{tmp_path / 'nothing'}")


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "hf-hub:timm/vit_tiny_patch16_224.augreg"]
)
@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_answer_is_quick_and_says_what_to_do(
    name: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="not in the local cache.*connect once.*'demo'"):
        load_model(name)
    assert time.monotonic() - started < 8
    assert constants.HF_HUB_OFFLINE is offline
    assert capsys.readouterr() == ("", "")


def no_network(name: str, **options: object) -> nn.Module:
    raise FileNotFoundError("not in the cache")  # as the hub does it, without a number


def test_the_cache_is_asked_before_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def create_model(name: str, pretrained: bool, **options: object) -> nn.Module:
        seen.append(constants.HF_HUB_OFFLINE)
        return no_network(name) if constants.HF_HUB_OFFLINE else nn.Identity()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(networks, "_is_reachable", lambda: True)
    assert isinstance(networks.create_pretrained(TINY, {}), nn.Identity)
    assert seen == [True, False]


def test_the_network_goes_away_during_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr(networks, "_is_reachable", lambda: True)
    with pytest.raises(ConnectionError, match="cannot be reached"):
        networks.create_pretrained(TINY, {})


def test_a_full_disk_is_not_blamed_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, **options: object) -> nn.Module:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timm, "create_model", full)
    with pytest.raises(OSError, match="No space left"):
        networks.create_pretrained(TINY, {})


def test_damaged_weights_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(name: str, **options: object) -> nn.Module:
        raise SafetensorError("incomplete metadata")

    monkeypatch.setattr(timm, "create_model", damaged)
    with pytest.raises(ValueError, match="cached weights .* are damaged .*; delete them under"):
        networks.create_pretrained(TINY, {})


def test_the_hub_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, **options: object) -> nn.Module:
        if constants.HF_HUB_OFFLINE:
            no_network(name)
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
        raise RepositoryNotFoundError("404: no such repository\nmore", response=response)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(networks, "_is_reachable", lambda: True)
    with pytest.raises(
        ValueError, match="the Hugging Face hub refused .*: 404: no such repository$"
    ):
        networks.create_pretrained("hf-hub:nobody/nothing", {})


def test_a_classifier_of_random_numbers_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "create_pretrained", networks.create)  # as if they were cached
    trained = "has random weights: 'vit_tiny_.*' was trained on 1000, so .* mean nothing"
    with pytest.warns(UserWarning, match=f"the classifier of 5 classes {trained}") as caught:
        assert load_model(TINY, num_classes=5, **SMALL).num_classes == 5
    assert caught[0].filename == __file__
    for classes in (1000, 0, None):  # warns of nothing
        load_model(TINY, num_classes=classes, **SMALL)
    load_model(TINY, num_classes=5, pretrained=False, **SMALL)


def test_two_threads_do_not_leave_the_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def create_model(name: str, pretrained: bool, **options: object) -> nn.Module:
        seen.append((name, constants.HF_HUB_OFFLINE))
        time.sleep(0.05)
        return no_network(name) if constants.HF_HUB_OFFLINE else nn.Identity()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(networks, "_is_reachable", lambda: not constants.HF_HUB_OFFLINE)
    names = [f"network {number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: networks.create_pretrained(name, {}), names))
    assert len(found) == 4 and constants.HF_HUB_OFFLINE is False
    assert sorted(seen) == sorted((name, offline) for name in names for offline in (True, False))


def test_weights_loaded_in_inference_mode_can_be_explained(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "a.safetensors")
    with torch.inference_mode():
        models = [
            load_model(TINY, checkpoint=tmp_path / "a.safetensors", device="cpu", **SMALL),
            load_model(TINY, pretrained=False, device="cpu", **SMALL),
            load_model("demo", device="cpu"),
        ]
        assert torch.is_inference_mode_enabled()
    for model in models:
        assert not any(parameter.is_inference() for parameter in model.network.parameters())
        explanation = explain(model, torch.randn(2, 3, 224, 224), target=[1, 2])
        assert explanation.method == "gradient_rollout" and (explanation.map > 0).any()


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_for_hf(
        tiny(),
        tmp_path / "model",
        model_config={"label_names": ["ant", "bee", "cow"], "label_descriptions": {"bee": "a bee"}},
        safe_serialization=True,
    )
    return tmp_path / "model"


def test_a_folder_that_timm_wrote_brings_its_labels(folder: Path) -> None:
    model = load_model(f"local-dir:{folder}", device="cpu")
    assert model.labels == ("ant", "a bee", "cow") and model.class_index("cow") == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "config.json is not valid JSON"),
        ("[]", "names no architecture of timm; .*from_pretrained"),
        ('{"model_type": "vit", "architectures": ["ViTModel"]}', "wrap_model.*from_pretrained"),
        ('{"architecture": 3}', "names no architecture of timm"),
        ('{"architecture": "vitt"}', "names the architecture 'vitt', which timm does not know"),
        ('{"architecture": "NAME", "pretrained_cfg": 3}', "pretrained_cfg as 3, expected a table"),
        ('{"architecture": "NAME", "pretrained_cfg": {}, "model_args": [1]}', "model_args as .1."),
        ('{"architecture": "NAME", "pretrained_cfg": {"input_size": 3}}', "timm cannot make"),
        ('{"architecture": "NAME", "pretrained_cfg": {"no": 3}}', "timm cannot make.*'no'"),
        (
            '{"architecture": "NAME", "pretrained_cfg": {}, "model_args": {"depth": "x"}}',
            "timm cannot make",
        ),
        (
            '{"architecture": "NAME", "pretrained_cfg": {"interpolation": "no"}}',
            "preprocessing .* cannot be made .*interpolation='no'.*give wrap_model a transform",
        ),
        ("\\x00\\xff", "is not valid JSON"),
    ],
)
def test_a_malformed_folder(config: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(config.replace("NAME", TINY))
    save_file(timm.create_model(TINY, num_classes=1000).state_dict(), folder / "model.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        load_model(f"local-dir:{folder}")
    assert "\n" not in str(error.value)


def test_damaged_weights_in_a_folder(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(
        ValueError, match=f"weights of .* are damaged .*; delete them under {folder}"
    ):
        load_model(f"local-dir:{folder}")


# Devices


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load.find_device("cpu") == torch.device("cpu")
    assert load.find_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load.find_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="unknown device 'gpu'; use auto, cpu, cuda or cuda:0"):
        load.find_device("gpu")
    with pytest.raises(ValueError, match="torch cannot use the device 'cuda:99' here; use auto"):
        load.find_device("cuda:99")


# The demo model


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small random demo model, its weights in half precision; returns the card."""
    path = tmp_path / "demo.safetensors"
    save_file({name: value.half() for name, value in tiny().state_dict().items()}, path)
    card = {
        "classes": ["cat", "dog", "bird"],
        "geometry": {"architecture": TINY, **SMALL},
        "preprocessing": {
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.25, 0.3],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        },
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "quality": {"top_logit": 0.98},
    }
    (tmp_path / "demo.json").write_text(json.dumps(card))
    monkeypatch.setattr(load, "DEMO_WEIGHTS", path)
    return card


def test_the_demo_is_what_its_card_says(demo: dict[str, Any]) -> None:
    model = load_model("demo", device="cpu")
    assert model.labels == ("cat", "dog", "bird") and model.class_index("dog") == 1
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    assert model.mean == pytest.approx((0.4, 0.5, 0.6))
    assert model.std == pytest.approx((0.2, 0.25, 0.3))
    assert model.multi_label and model.name == "demo" and not model.network.training
    probabilities = model.probabilities(torch.zeros(2, 3))  # several can be there at once
    torch.testing.assert_close(probabilities, torch.full((2, 3), 0.5))


def test_the_demo_takes_no_options(demo: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")
    for options in ({"checkpoint": tmp_path / "a.pth"}, {"img_size": 64}):
        with pytest.raises(ValueError, match="the demo model takes no checkpoint and no options"):
            load_model("demo", **options)


def test_a_damaged_demo_is_noticed(demo: dict[str, Any]) -> None:
    content = bytearray(load.DEMO_WEIGHTS.read_bytes())
    content[-1] ^= 1
    load.DEMO_WEIGHTS.write_bytes(content)
    with pytest.raises(ValueError, match="demo.safetensors is damaged: its hash is not the one in"):
        load_model("demo")


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_missing_demo_says_how_to_make_it(suffix: str, demo: dict[str, Any]) -> None:
    load.DEMO_WEIGHTS.with_suffix(suffix).unlink()
    with pytest.raises(FileNotFoundError, match="no demo model at .*; run notebooks/08_train"):
        load_model("demo")
