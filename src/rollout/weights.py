"""Networks and their weights: timm, a local checkpoint, the bundled demo. Nothing is unpickled."""

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rollout.files import DATA

DEMO_WEIGHTS = DATA / "models" / "demo.safetensors"
DEMO_CARD = DATA / "models" / "demo.json"


def create_network(
    name: str,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    options: Mapping[str, object] | None = None,
) -> nn.Module:
    """A timm network with pretrained, checkpointed or random weights; see `models.load_model`."""
    _check_name(name)
    options = dict(options or {})
    if checkpoint is None:
        return _create(name, pretrained, options)
    state = read_checkpoint(checkpoint)
    network = _create(name, False, {"num_classes": _num_classes(state), **options})
    _load_state(network, state, checkpoint, name)
    return network


def load_demo() -> tuple[nn.Module, tuple[str, ...]]:
    """The bundled demo model and its labels, as its card describes them."""
    if not DEMO_WEIGHTS.is_file():
        raise FileNotFoundError(
            f"no demo model at {DEMO_WEIGHTS}; run notebooks/08_train_the_demo_model.ipynb"
        )
    card = json.loads(DEMO_CARD.read_text())
    if hashlib.sha256(DEMO_WEIGHTS.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(f"{DEMO_WEIGHTS} is damaged: its hash is not the one in {DEMO_CARD.name}")
    geometry = {key: value for key, value in card["geometry"].items() if key != "architecture"}
    network = timm.create_model(
        card["geometry"]["architecture"], num_classes=len(card["classes"]), **geometry
    )
    _load_state(network, load_file(DEMO_WEIGHTS), DEMO_WEIGHTS, "demo")
    network.pretrained_cfg |= card["preprocessing"]
    return network, tuple(card["classes"])


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; training wrappers around them are taken off."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, and running code from a file is refused; "
            "save the state_dict alone, best with safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint ({error})") from error
    for wrapper in ("state_dict", "model", "model_state_dict", "network"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state_dict, a table of tensors by name")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_name(name: str) -> None:
    """Refuse what timm does not know, with the nearest names that it does."""
    architecture = name.split(".")[0]
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or timm.is_model(architecture):
        return
    close = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise ValueError(f"unknown model {name!r}; {hint} (or 'demo', which needs no download)")


def _create(name: str, pretrained: bool, options: dict[str, object]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except OSError as error:
        raise ConnectionError(
            f"the weights of {name!r} are not in the local cache and the Hugging Face hub cannot be "
            "reached; connect once so that they are kept, or pass checkpoint=FILE (--checkpoint), "
            "or use the model 'demo', which is bundled"
        ) from error
    except (RuntimeError, TypeError) as error:
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
