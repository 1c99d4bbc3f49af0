"""Files that were damaged, or made by others: weights, images, notebooks, folders of models."""

import json
import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hostile import bad_value
from PIL import Image
from safetensors.torch import save_file
from weights_files import TINY, small

from rollout import load_model
from rollout.collection.notebooks import check_runs
from rollout.files import NOTEBOOKS
from rollout.models.images import load_image

OPTIONS: dict[str, Any] = {"device": "cpu", "depth": 1, "embed_dim": 24, "num_heads": 3}
OPTIONS |= {"img_size": 32}


def damaged(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Bytes changed, lost, doubled; the start of a file, which says what it is, more often."""
    kind = rng.choice(["flip", "flip", "header", "cut", "zeros", "insert", "twice", "lose"])
    place = rng.randrange(len(content))
    data = bytearray(content)
    if kind == "flip":
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "header":
        data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
    elif kind == "cut":
        data = data[: rng.choice([place, 0, 1, 8, 9, 30])]
    elif kind == "zeros":
        data[place : place + 64] = bytes(min(64, len(data) - place))
    elif kind == "insert":
        data[place:place] = rng.randbytes(rng.choice([1, 7]))
    elif kind == "twice":
        data += data[: place or 1]
    else:
        del data[place : place + rng.choice([1, 16, 1000])]
    return f"{kind} at {place}", bytes(data)


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def safetensors_bytes(state: dict[str, torch.Tensor], path: Path) -> bytes:
    save_file(state, path)
    return path.read_bytes()


def npz_bytes(state: dict[str, torch.Tensor]) -> bytes:
    stream = BytesIO()
    np.savez(stream, **{name: value.numpy() for name, value in state.items()})
    return stream.getvalue()


def finite(model: Any) -> None:
    assert all(value.device.type == "cpu" for value in model.network.state_dict().values())
    assert not model.num_classes or model.network.head.weight.shape[0] == model.num_classes


def small_state() -> dict[str, torch.Tensor]:
    return small(**{key: value for key, value in OPTIONS.items() if key != "device"}).state_dict()


def test_damaged_weights(fuzz, tmp_path):
    area = fuzz("checkpoints", 40)
    state = small_state()
    path = tmp_path / "weights.safetensors"
    content = {"state_dict": state, "arch": TINY, "args": {"lr": 0.1}, "epoch": 3}
    files = {
        "safetensors": safetensors_bytes(state, path),
        "torch": torch_bytes(content),
        "old torch": torch_bytes(content, _use_new_zipfile_serialization=False),
        "numpy": npz_bytes(state),
    }
    for kind, whole in files.items():
        for _ in range(area.cases):
            said, broken = damaged(area.rng, whole)
            path.write_bytes(broken)
            area.attempt(
                lambda: load_model(TINY, checkpoint=path, **OPTIONS),
                f"{kind}, {said}",
                check=finite,
            )


Change = Callable[[random.Random, dict[str, Any], str], Any]
CHANGES: dict[str, Change] = {
    "renamed": lambda rng, state, name: state.update({rng.choice("ab.") + name: state.pop(name)}),
    "lost": lambda rng, state, name: state.pop(name),
    "flat": lambda rng, state, name: state.update({name: state[name].flatten()}),
    "one axis more": lambda rng, state, name: state.update({name: state[name][None]}),
    "scalar": lambda rng, state, name: state.update({name: torch.tensor(1.0)}),
    "empty": lambda rng, state, name: state.update({name: state[name][:0]}),
    "shorter": lambda rng, state, name: state.update({name: state[name][..., :-1]}),
    "transposed": lambda rng, state, name: state.update({name: state[name].transpose(0, -1)}),
    "nan": lambda rng, state, name: state.update({name: state[name] * float("nan")}),
    "integers": lambda rng, state, name: state.update({name: state[name].int()}),
    "half": lambda rng, state, name: state.update({name: state[name].half()}),
    "complex": lambda rng, state, name: state.update({name: state[name].to(torch.complex64)}),
    "sparse": lambda rng, state, name: state.update({name: state[name].to_sparse()}),
    "meta": lambda rng, state, name: state.update({name: state[name].to("meta")}),
    "a list": lambda rng, state, name: state.update({name: state[name].tolist()}),
    "none": lambda rng, state, name: state.update({name: None}),
    "nested": lambda rng, state, name: state.update({name: {name: state[name]}}),
    "number as name": lambda rng, state, name: state.update({rng.randrange(9): state.pop(name)}),
    "anything": lambda rng, state, name: state.update({name: _savable(rng, state[name])}),
    "odd name": lambda rng, state, name: state.update({_text(rng): state.pop(name)}),
}
HEADS = ("head.weight", "head.bias", "pos_embed", "cls_token", "patch_embed.proj.weight")


def _plain(value: Any) -> bool:
    """A tensor that can be changed in all these ways."""
    return isinstance(value, torch.Tensor) and not (value.is_sparse or value.is_meta)


def _savable(rng: random.Random, value: Any) -> Any:
    made = bad_value(rng, value)[1]
    plain = isinstance(made, torch.Tensor | int | float | str | list | tuple | dict | set)
    return made if plain and not (isinstance(made, list | tuple) and made) else None


def _text(rng: random.Random) -> str:
    return str(bad_value(rng, "head.weight")[1])


def test_weights_with_other_tensors(fuzz, tmp_path):
    area = fuzz("checkpoints", 150)
    path = tmp_path / "weights.pth"
    own = small_state()
    notes = {"arch": TINY, "labels": ["a", "b", "c"], "model": TINY, "id2label": {0: "a"}}
    for _ in range(area.cases):
        state: dict[Any, Any] = dict(own)
        said = []
        for _ in range(area.rng.choice([1, 1, 2, 5])):
            name = area.rng.choice([*HEADS, *[one for one in state if isinstance(one, str)]])
            if not _plain(state.get(name)):
                continue
            kind = area.rng.choice(list(CHANGES))
            CHANGES[kind](area.rng, state, name)
            said.append(f"{name} {kind}")
        content: Any = state
        if area.rng.random() < 0.4:
            key = area.rng.choice(list(notes))
            content = {"state_dict": state, key: _savable(area.rng, notes[key])}
            said.append(f"{key}={content[key]!r:.40}")
        torch.save(content, path)
        area.attempt(
            lambda: load_model(TINY, checkpoint=path, **OPTIONS), ", ".join(said), check=finite
        )


def pictures() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    images = {
        "PNG": Image.fromarray(noise),
        "JPEG": Image.fromarray(noise),
        "GIF": Image.fromarray(noise).quantize(8),
        "BMP": Image.fromarray(noise),
        "WEBP": Image.fromarray(noise),
        "TIFF": Image.fromarray(noise[..., 0].astype(np.float32)),
        "PPM": Image.fromarray(noise),
        "ICO": Image.fromarray(noise),
        "TGA": Image.fromarray(noise).convert("RGBA"),
    }
    files = {}
    for kind, image in images.items():
        stream = BytesIO()
        image.save(stream, kind)
        files[kind] = stream.getvalue()
    deep = BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(deep, "TIFF")
    return {**files, "TIFF 16": deep.getvalue()}


def test_damaged_images(fuzz, tmp_path):
    area = fuzz("images", 60)
    for kind, whole in pictures().items():
        for _ in range(area.cases):
            said, broken = damaged(area.rng, whole)
            path = tmp_path / "a.img"
            path.write_bytes(broken)
            source = path if area.rng.random() < 0.5 else BytesIO(broken)
            area.attempt(lambda: load_image(source).load(), f"{kind}, {said}")  # noqa: B023


def test_damaged_notebooks(fuzz, tmp_path):
    area = fuzz("notebooks", 60)
    whole = (NOTEBOOKS / "02_gradient_rollout.ipynb").read_bytes()
    path = tmp_path / "a.ipynb"
    for _ in range(area.cases):
        said, broken = damaged(area.rng, whole)
        path.write_bytes(broken)
        area.attempt(lambda: check_runs([path], tmp_path / "out", {"target": 1}), said)
    for _ in range(area.cases):
        said, content = replaced(area.rng, json.loads(whole), area.rng.choice([1, 2, 3, 4]))
        path.write_text(json.dumps(content), encoding="utf-8")
        area.attempt(lambda: check_runs([path], tmp_path / "out", {"target": 1}), said)


VALUES = [None, True, 0, -1, 1e300, "", "x", "\ud83d", "a\nb", [], [1], {}, {"a": 1}, [[]], [None]]


def replaced(rng: random.Random, content: Any, depth: int) -> tuple[str, Any]:
    """A value somewhere in JSON replaced by another, or a key lost."""
    if depth and isinstance(content, dict | list) and content:
        places = list(content) if isinstance(content, dict) else list(range(len(content)))
        place = rng.choice(places)
        if depth == 1 and rng.random() < 0.2:
            del content[place]
            return f"{place} lost", content
        said, content[place] = replaced(rng, content[place], depth - 1)
        return f"{place}.{said}", content
    value = rng.choice(VALUES)
    return f"= {value!r}", value


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    network = timm.create_model(
        TINY, num_classes=3, **{key: value for key, value in OPTIONS.items() if key != "device"}
    )
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": TINY,
        "num_classes": 3,
        "num_features": 24,
        "global_pool": "token",
        "model_args": {key: value for key, value in OPTIONS.items() if key != "device"},
        "label_names": ["a", "b", "c"],
        "label_descriptions": {"a": "A"},
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, 32, 32],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 3,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_folders_of_models(fuzz, model_folder):
    area = fuzz("checkpoints", 120)
    name, file = f"local-dir:{model_folder}", model_folder / "config.json"
    whole = file.read_text()
    assert load_model(name, device="cpu").num_classes == 3
    for _ in range(area.cases):
        said, content = replaced(area.rng, json.loads(whole), area.rng.choice([0, 1, 1, 2, 2, 3]))
        file.write_text(json.dumps(content))
        area.attempt(lambda: load_model(name, device="cpu"), said)
    for _ in range(area.cases // 4):
        said, broken = damaged(area.rng, whole.encode())
        file.write_bytes(broken)
        area.attempt(lambda: load_model(name, device="cpu"), said)
