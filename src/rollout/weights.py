"""Networks and their weights: timm, a local checkpoint, the bundled demo. Nothing is unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rollout.checkpoints import read_checkpoint
from rollout.files import DATA
from rollout.hub import check_name, create_pretrained

DEMO_WEIGHTS = DATA / "models" / "demo.safetensors"


def create_network(
    name: str,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm network with pretrained, checkpointed or random weights; see `models.load_model`."""
    check_name(name)
    options = dict(options or {})
    try:
        return _create_network(name, checkpoint, pretrained, options)
    except ValueError as error:
        if "unexpected keyword argument 'img_size'" not in str(error):
            raise
        del options["img_size"]  # convolutions are not told: they take any size
        return _create_network(name, checkpoint, pretrained, options)


def _create_network(
    name: str, checkpoint: str | Path | None, pretrained: bool, options: Mapping[str, Any]
) -> nn.Module:
    if checkpoint is None:
        return create_pretrained(name, options) if pretrained else _create(name, options)
    state = read_checkpoint(checkpoint)
    network = _create(name, {"num_classes": _num_classes(state), **options})
    _load_state(network, state, checkpoint, name)
    return network


def load_demo(path: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """A demo model and its labels, as the card beside its weights describes them.

    Args:
        path: the weights that `training.export` wrote; None is the bundled model.
    """
    path = path or DEMO_WEIGHTS
    card_path = path.with_suffix(".json")
    for file in (path, card_path):
        if not file.is_file():
            raise FileNotFoundError(
                f"no demo model at {file}; run notebooks/08_train_the_demo_model.ipynb"
            )
    card = json.loads(card_path.read_text())
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(f"{path} is damaged: its hash is not the one in {card_path.name}")
    geometry = {key: value for key, value in card["geometry"].items() if key != "architecture"}
    network = timm.create_model(
        card["geometry"]["architecture"], num_classes=len(card["classes"]), **geometry
    )
    _load_state(network, load_file(path), path, "demo")
    network.pretrained_cfg |= card["preprocessing"]
    return network, tuple(card["classes"])


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name if torch can use it here; "auto" is a GPU where there is one."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:0") from None
    try:
        torch.empty(0, device=chosen)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"torch cannot use the device {device!r} here; use auto or cpu") from error
    return chosen


def _create(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm cannot make {name!r}: {error}") from error


def _num_classes(state: Mapping[str, Tensor]) -> int:
    """As many classes as the checkpoint's classifier has rows; 0 where it has no classifier."""
    for classifier in ("head.weight", "head.fc.weight", "fc.weight"):
        if classifier in state:
            return state[classifier].shape[0]
    return 0


def _load_state(
    network: nn.Module, state: Mapping[str, Tensor], path: str | Path, name: str
) -> None:
    """Every tensor must find its place, in the right shape; nothing is reshaped or left random."""
    expected = network.state_dict()
    wrong = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    wrong += [f"{key} is missing" for key in expected if key not in state]
    wrong += [f"{key} is not in the architecture" for key in state if key not in expected]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} does not fit {name!r}: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict(dict(state))
