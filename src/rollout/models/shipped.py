"""Weights of our own, and the card beside them that says what they are and how good they are."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from rollout.files import check_shipped, enter_shipped, whole_file


def read_shipped(weights: Path, what: str, notebook: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the card that `write_shipped` left.

    Args:
        weights: a .safetensors file; the card has its name with .json.
        what: what the two are, and the notebook that makes them, for the error.

    Raises:
        FileNotFoundError: one of the two is missing.
        ValueError: the weights are not those that the card describes.
    """
    card_path = weights.with_suffix(".json")
    for file in (weights, card_path):
        if not file.is_file():
            raise FileNotFoundError(f"no {what} at {file}; run notebooks/{notebook}.ipynb")
    card = json.loads(check_shipped(card_path).read_text())
    if hashlib.sha256(weights.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(f"{weights} is damaged: its hash is not the one in {card_path.name}")
    return load_file(weights), card


def write_shipped(weights: str | Path, state: Mapping[str, Tensor], card: dict[str, Any]) -> Path:
    """Write the tensors, and the card with their hash beside them; returns the card's path."""
    weights = Path(weights)
    with whole_file(weights) as partial:
        save_file(dict(state), partial)
    path = weights.with_suffix(".json")
    described = {**card, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(described, indent=2) + "\n")
    enter_shipped(weights)
    return enter_shipped(path)
