"""timm's own loading, held to be strict; and sentences about what does not fit."""

import re
from collections.abc import Mapping
from typing import Any

from rollout.models.checkpoints import Checkpoint, Table
from rollout.models.networks import create

# Nothing but the tensors handed over is a source of weights.
NO_SOURCE = dict.fromkeys(("source", "url", "file", "hf_hub_id", "hf_hub_filename"))


class Misfit(Exception):
    """What timm's strict loading found wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.missing = _names_after("Missing key", message)
        self.unexpected = _names_after("Unexpected key", message)
        self.shapes = re.findall(
            r"size mismatch for (\S+): .* torch.Size\(\[(.*?)\]\) .* torch.Size\(\[(.*?)\]\)",
            message,
        )

    def faults(self, tensors: Table) -> list[str]:
        """A line for each fault; none if something else went wrong than names and shapes.

        Args:
            tensors: those of the file, whose shapes timm may have changed already.
        """
        found = {name: list(tensors[name].shape) for name, *_ in self.shapes if name in tensors}
        return [
            *(
                f"{name} is ({', '.join(map(str, found.get(name, [got])))}), expected ({expected})"
                for name, got, expected in self.shapes
            ),
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is not in the architecture" for name in self.unexpected),
        ]


def _names_after(heading: str, message: str) -> list[str]:
    lines = re.findall(rf"{heading}\(s\) in state_dict: (.*)", message)
    return re.findall(r'"([^"]+)"', " ".join(lines))


def create_strictly(name: str, source: dict[str, Any], arguments: Mapping[str, Any]) -> Any:
    """timm loads strictly, as the source says how many classes and channels the file has."""
    try:
        network: Any = create(
            name, {**arguments, "pretrained_cfg_overlay": source}, pretrained=True
        )
    except ValueError as error:
        raise Misfit(str(error.__cause__ or error)) from error
    network.pretrained_cfg.pop("state_dict", None)  # the network has them now
    return network


def refusal(misfit: Misfit, name: str, checkpoint: Checkpoint, tensors: Table) -> str:
    """What was found, what was expected, and the cure.

    Args:
        tensors: those of the file: their names tell which library wrote it.
    """
    faults = misfit.faults(tensors)
    faults = faults or [f"timm cannot convert it ({' '.join(str(misfit).split())[:200]})"]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    cure = _cure(checkpoint, tensors)
    if [shape[0] for shape in misfit.shapes] == ["pos_embed"] and len(faults) == 1:
        cure = "give image_size=(height, width), the pixels of the images that it was trained on"
    return f"{checkpoint.path} does not fit {name!r}: {'; '.join(faults[:3])}{more}; {cure}"


def _cure(checkpoint: Checkpoint, tensors: Table) -> str:
    names = " ".join(tensors)
    for sign, cure in _CURES.items():
        if re.search(sign, names):
            return cure
    said = f" (the file says {checkpoint.architecture!r})" if checkpoint.architecture else ""
    return f"name the architecture that it was made for{said}, see timm.list_models()"


_CURES = {
    r"lora_": "merge the adapter into its network first (merge_and_unload), and save that",
    r"embeddings\.patch_embeddings|layernorm_before": "these are names of Hugging Face's "
    "transformers: give wrap_model the network that from_pretrained makes of the file's folder",
    r"encoder_layer_0\.": "these are names of torchvision: load them there, and give the network "
    "to wrap_model",
    r"resblocks\.": "these are names of open_clip: open_clip.create_model(..., pretrained=FILE) "
    "loads them, and wrap_model takes its network",
}
