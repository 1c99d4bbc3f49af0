"""Read the tensors of a weights file, whatever wrote it. Nothing in it is ever run."""

import argparse
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

Table = Mapping[str, Tensor]

# What belongs to the whole process (warning filters, torch's safe globals, the hub's offline mode)
# is changed and restored by one thread at a time; two would restore each other's changes.
ONE_AT_A_TIME = threading.RLock()

_ARCHITECTURE = ("arch", "architecture", "model_name", "model")


_DEPTH = 8  # of dictionaries in dictionaries; a damaged file may hold one in itself


_LABELS = ("label_names", "labels", "class_names", "classes", "id2label", "class_to_idx")


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds.

    Attributes:
        tables: every table of tensors by name, by where it stands in the file: "" is the top,
            "state_dict_ema" a table in it, "teacher.backbone" a table in a table.
        architecture: what the file says that its weights are of, if it does.
        labels: the names of the classes in the file, if it has them.
        jax: whether it is an original file of JAX, whose layout timm's networks read themselves.
    """

    path: Path
    tables: Mapping[str, Table]
    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    jax: bool = False


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Everything in a weights file that helps to fill a network.

    The content decides how it is read, not the name: safetensors, a torch file, or arrays of numpy.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, without a table of tensors, or in need of code to be read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        check_folder(path)
        raise FileNotFoundError(f"no checkpoint file {path}")
    content = _content(path)
    tables = dict(_tables(content))
    if not tables:
        raise ValueError(f"{path} holds no state_dict, a table of tensors by name")
    for table in tables.values():
        _check_values(path, table)
    return Checkpoint(path, tables, _architecture(content), _labels(content), _is_jax(tables))


def _check_values(path: Path, table: Table) -> None:
    for name, value in table.items():
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            kind = "quantised" if value.is_quantized else f"{value.layout}, {value.dtype}"
            raise ValueError(
                f"{path} holds {name!r} as {kind}; save it as an ordinary tensor of real numbers"
            )


def check_folder(folder: Path) -> None:
    """A folder of Hugging Face's transformers or PEFT is refused with the way that works."""
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if "adapter_config.json" in names:
        raise ValueError(
            f"{folder} is an adapter of PEFT, which changes another network: load that with its "
            "own library, PeftModel.from_pretrained(network, folder).merge_and_unload(), and give "
            "it to wrap_model"
        )
    if "config.json" in names or any(".index.json" in name for name in names):
        raise ValueError(
            f"{folder} is a folder, not a weights file; if Hugging Face's transformers wrote it, "
            "give wrap_model(AutoModelForImageClassification.from_pretrained(folder)); if timm "
            f"did, load_model('local-dir:{folder}')"
        )


def _content(path: Path) -> Any:
    try:
        return _read(path)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged; running code from a file is refused; "
            "save the state_dict alone, best with safetensors"
        ) from error
    except Exception as error:  # damage makes the readers raise nearly anything
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be opened at all; the system says why
        reason = str(error).split("\n")[0].split(". ")[0] or "it ends too early"
        raise ValueError(f"{path} is no readable checkpoint ({reason})") from error


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
        # A brace after the header's length, which may be any bytes: those of a pickle, too.
        if start[8:] != b"{" and start.startswith((b"PK", b"\x80")):
            file.seek(0)
            return _read_arrays(file) if _is_numpy(file) else _read_torch_file(file)
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return load_file(path)
    raise ValueError("it is neither safetensors nor a torch file nor arrays of numpy")


def _read_arrays(file: BinaryIO) -> dict[str, Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _is_numpy(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        names = []
    file.seek(0)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_torch_file(file: BinaryIO) -> Any:
    # timm's training script keeps its arguments beside the weights; a Namespace is plain data.
    safe = torch.serialization.safe_globals([argparse.Namespace])
    with ONE_AT_A_TIME, warnings.catch_warnings(), safe:
        warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read raises
        return torch.load(file, map_location="cpu", weights_only=True)


def _tables(content: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, Table]]:
    """Every dictionary that holds tensors by name, deep inside others too."""
    if not isinstance(content, dict) or depth > _DEPTH:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in named.items():
        yield from _tables(value, f"{path}.{key}" if path else key, depth + 1)


def _is_jax(tables: Mapping[str, Table]) -> bool:
    return any(name.endswith("embedding/kernel") for name in tables.get("", {}))


def _architecture(content: object) -> str | None:
    for notes in _notes(content):
        for key in _ARCHITECTURE:
            if isinstance(notes.get(key), str):
                return notes[key]
    return None


def _labels(content: object) -> tuple[str, ...] | None:
    for notes in _notes(content):
        for key in _LABELS:
            labels = _as_labels(notes.get(key))
            if labels:
                return labels
    return None


def _notes(content: object) -> Iterator[dict[Any, Any]]:
    """The file's own dictionary, then what trainers keep in it: arguments, settings."""
    if not isinstance(content, dict):
        return
    yield content
    for key in ("args", "hyper_parameters", "config", "meta", "dataset_meta"):
        inner = content.get(key)
        inner = vars(inner) if isinstance(inner, argparse.Namespace) else inner
        if isinstance(inner, dict):
            yield inner


def _as_labels(names: object) -> tuple[str, ...] | None:
    """A list of names; or a dictionary from index to name, or from name to index."""
    if isinstance(names, dict):
        pairs = list(names.items())
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        numbered = {int(key): value for key, value in pairs if str(key).isdecimal()}
        names = [numbered.get(index) for index in range(len(names))]
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
