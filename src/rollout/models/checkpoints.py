"""Read the tensors of a weights file, whatever wrote it. Nothing in it is ever run."""

import argparse
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = ("state_dict", "model", "model_state_dict", "network")


_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; training wrappers around them are taken off.

    The content decides how it is read, not the name: safetensors, or a torch file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, not a table of tensors, or in need of code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file {path}")
    try:
        state = _read(path)
    except (SafetensorError, RuntimeError, EOFError, KeyError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0].split(". ")[0] or "it ends too early"
        raise ValueError(f"{path} is no readable checkpoint ({reason})") from error
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, and running code from a file is refused; "
            "save the state_dict alone, best with safetensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not _is_state_dict(state):
        raise ValueError(f"{path} holds no state_dict, a table of tensors by name")
    return {_without_prefix(name): value for name, value in state.items()}


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
        if start.startswith((b"PK", b"\x80")):
            file.seek(0)
            return _read_torch_file(file)
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return load_file(path)
    raise ValueError("it is neither safetensors nor a torch file")


def _read_torch_file(file: BinaryIO) -> Any:
    # timm's training script keeps its arguments beside the weights; a Namespace is plain data.
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read raises
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_state_dict(state: object) -> bool:
    return (
        isinstance(state, dict)
        and bool(state)
        and all(isinstance(name, str) for name in state)
        and all(isinstance(value, Tensor) for value in state.values())
    )


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
