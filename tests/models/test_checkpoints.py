"""Weights files: what is read out of them, what is refused, and that damage ends in a sentence."""

import argparse
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rollout.models.checkpoints import read_checkpoint
from rollout.models.fit import fill

TINY = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": 32}


@pytest.fixture
def state() -> dict[str, Tensor]:
    return timm.create_model(TINY, num_classes=3, **SMALL).state_dict()


class Code:
    """Pickled, it makes whoever unpickles it create a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable, tuple]:
        return open, (str(self.proof), "w")


@pytest.mark.parametrize("name", ["a.pth", "a.bin", "a.safetensors", "no-suffix"])
@pytest.mark.parametrize("written", ["torch", "old torch", "safetensors"])
def test_the_content_decides_how_a_checkpoint_is_read(
    name: str, written: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / name
    if written == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=written == "torch")
    torch.testing.assert_close(read_checkpoint(path).tables[""], dict(state), rtol=0, atol=0)


@pytest.mark.parametrize(
    "write", [torch.save, lambda code, path: path.write_bytes(pickle.dumps(code))]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(write: Callable, tmp_path: Path) -> None:
    proof = tmp_path / "the code ran"
    for content in (Code(proof), {"state_dict": {"weight": Code(proof)}}):
        write(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="more than tensors.*refused; save the state_dict"):
            read_checkpoint(tmp_path / "a.pth")
    assert not proof.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="more than tensors.*refused"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "old.pth", "a.safetensors"])
@pytest.mark.parametrize("length", [0, 20, 60, 2000])
def test_a_truncated_checkpoint(
    name: str, length: int, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "a.pth")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=f"{name} (is no readable checkpoint|holds more than)"
    ) as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("hello")
    with pytest.raises(
        ValueError, match="no readable checkpoint .it is neither safetensors nor a torch"
    ):
        read_checkpoint(tmp_path / "a.pth")
    cyclic: dict[str, Any] = {"epoch": 3}
    cyclic["self"] = cyclic
    for content in ([1, 2], {}, cyclic, {1: torch.zeros(2)}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="holds no state_dict, a table of tensors by name"):
            read_checkpoint(tmp_path / "a.pth")
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="no checkpoint file"):
            read_checkpoint(path)


def test_a_header_whose_length_begins_like_a_pickle(tmp_path: Path) -> None:
    """The length of the header comes first in safetensors, and its first byte may be any."""
    for padding in range(256):
        save_file({"weight": torch.ones(2)}, tmp_path / "a", metadata={"a": "x" * padding})
        if (tmp_path / "a").read_bytes()[:1] == b"\x80":
            break
    else:
        pytest.fail("no length of a header begins with the byte of a pickle")
    assert read_checkpoint(tmp_path / "a").tables[""]["weight"].tolist() == [1, 1]


def test_arrays_of_numpy(state: dict[str, Tensor], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{name: value.numpy() for name, value in state.items()})
    found = read_checkpoint(tmp_path / "a.npz")
    torch.testing.assert_close(found.tables, {"": dict(state)}, rtol=0, atol=0)
    assert not found.jax


def test_objects_in_arrays_of_numpy_are_not_unpickled(tmp_path: Path) -> None:
    proof = tmp_path / "the code ran"
    np.savez(tmp_path / "a.npz", a=np.array([Code(proof)], dtype=object))
    with pytest.raises(ValueError, match="is no readable checkpoint"):
        read_checkpoint(tmp_path / "a.npz")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(2, 2, dtype=torch.complex64), "complex64"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
    ],
)
def test_tensors_that_are_no_weights(value: Tensor, kind: str, tmp_path: Path) -> None:
    torch.save({"a": {"weight": value}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"holds 'weight' as .*{kind}.*ordinary tensor"):
        read_checkpoint(tmp_path / "a.pth")


def test_every_table_is_found_with_its_place(state: dict[str, Tensor], tmp_path: Path) -> None:
    content = {"epoch": 3, "net": dict(state), "more": {"teacher": dict(state)}, "lr": [0.1]}
    torch.save(content, tmp_path / "a.pth")
    assert list(read_checkpoint(tmp_path / "a.pth").tables) == ["net", "more.teacher"]


@pytest.mark.parametrize(
    ("notes", "architecture", "labels"),
    [
        ({"arch": TINY, "class_names": ["a", "b"]}, TINY, ("a", "b")),
        ({"args": argparse.Namespace(model=TINY, classes=("a", "b"))}, TINY, ("a", "b")),
        (
            {"hyper_parameters": {"model_name": TINY, "id2label": {1: "b", 0: "a"}}},
            TINY,
            ("a", "b"),
        ),
        ({"class_to_idx": {"b": 1, "a": 0}}, None, ("a", "b")),
        ({"id2label": {"0": "a", "1": "b"}}, None, ("a", "b")),
        ({"id2label": {0: "a", 2: "b"}, "labels": [1, 2], "arch": 3}, None, None),
    ],
)
def test_what_a_file_says_of_itself(
    notes: dict, architecture: str | None, labels: tuple | None, tmp_path: Path
) -> None:
    torch.save({"model": {"weight": torch.zeros(2)}, **notes}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert (found.architecture, found.labels) == (architecture, labels)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "an adapter of PEFT.*merge_and_unload.*wrap_model"),
        ("config.json", "is a folder.*wrap_model.AutoModelForImageClassification.from_pretrained"),
        ("model.safetensors.index.json", "is a folder.*from_pretrained"),
    ],
)
def test_folders_of_other_libraries(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path)


# Damage


def damages(content: bytes, count: int) -> Iterator[bytes]:
    """The file with bytes changed, cut off, left out, doubled or zeroed."""
    dice = random.Random(0)
    for _ in range(count):
        start = dice.randrange(len(content))
        # Half of the damage goes where the structure is: at the beginning or the end.
        if dice.random() < 0.5:
            start = dice.choice([start % 600, len(content) - 1 - start % 600])
        stop = min(start + dice.choice([1, 1, 4, 50]), len(content))
        middle = dice.choice(
            [
                bytes(dice.randrange(256) for _ in range(stop - start)),
                bytes(stop - start),
                b"",
                content[start:stop] * 2,
                content[start:stop].swapcase(),
            ]
        )
        yield content[:start] if dice.random() < 0.1 else content[:start] + middle + content[stop:]


@pytest.mark.parametrize("written", ["torch", "old torch", "safetensors", "numpy"])
def test_damage_ends_in_a_sentence(written: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if written == "safetensors":
        save_file(state, path)
    elif written == "numpy":
        with path.open("wb") as file:
            np.savez(file, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save({"arch": TINY, "state_dict": state, "state_dict_ema": state}, path,
                   _use_new_zipfile_serialization=written == "torch")  # fmt: skip
    refused = 0
    for damaged in damages(path.read_bytes(), 200):
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fill(TINY, read_checkpoint(path), SMALL)
            except (ValueError, OSError) as error:
                assert "\n" not in str(error) and str(path) in str(error)
                refused += 1
    assert refused > 50
