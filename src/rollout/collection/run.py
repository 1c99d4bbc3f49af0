"""What the processes of a collection share: where the model comes from, and a job's work."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rollout.collection.engine import held, worker_number
from rollout.collection.folder import Folder
from rollout.collection.table import count
from rollout.collection.task import Shard, hash_weights
from rollout.collection.work import explain_shard
from rollout.models.load import load_model
from rollout.models.model import Model
from rollout.plots.figure import jet_overlay


@dataclass
class Run:
    """Sent to each process once.

    Attributes:
        model: a name, with the options of `load_model`, or the model itself.
        weights: the hash that the weights of a model loaded by name must have.
        task: what is asked of each job; a collection's is a `Task`.
    """

    model: str | Model
    options: Mapping[str, Any]
    weights: str
    task: Any
    folder: Folder
    _loaded: Model | None = field(default=None, repr=False)

    def ready_model(self) -> Model:
        """The model, loaded when first asked for; on this process's GPU where there are some."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> Model:
        gpus = torch.cuda.device_count()
        own = f"cuda:{worker_number() % gpus}" if gpus else "cpu"
        if isinstance(self.model, Model):
            if self.model.device.type == "cuda":
                self.model.network.to(own)
            return self.model
        device = own if self.options["device"] in ("auto", "cuda") and gpus else None
        options = {**self.options, **({"device": device} if device else {})}
        model = load_model(self.model, **options)
        found = hash_weights(model)
        if found != self.weights:
            raise ValueError(
                f"the weights of {model.name} are not the same in every process ({found[:12]}, not "
                f"{self.weights[:12]}); random ones never are: give a checkpoint or the model"
            )
        return model


def fill(shard: Shard) -> tuple[int, int]:
    """The job: write the part of a shard; returns its rows and how many have an error."""
    run: Run = held()
    model = run.ready_model()

    def paint(name: str, picture: Tensor, saliency_map: Tensor) -> None:
        run.folder.write_overlay(f"{shard.number:05d}/{name}", overlay_png(picture, saliency_map))

    table = explain_shard(
        model, shard, run.task, readers(model), paint if run.task.overlays else None
    )
    run.folder.write_part(shard.number, table)
    return count(table)


def readers(model: Model) -> int:
    """Threads that open images: a processor's core does one thing, a GPU waits for several."""
    gpus = torch.cuda.device_count()
    return max(1, (os.cpu_count() or 1) // gpus) if gpus and model.device.type == "cuda" else 1


def overlay_png(picture: Tensor, saliency_map: Tensor) -> bytes:
    """A map over its image, (height, width) and (height, width, 3), in the look of vit-explain."""
    stream = BytesIO()
    Image.fromarray(jet_overlay(picture.numpy(), saliency_map.numpy())).save(stream, "png")
    return stream.getvalue()
