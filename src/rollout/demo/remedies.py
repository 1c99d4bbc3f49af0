"""What might help where one patch dominates attention rollout, held against scenes.

The maps are blind to the class, so the truth is where any object lies.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import trange

from rollout.capture.blocks import Block
from rollout.demo.samples import seen_coverage
from rollout.demo.scenes import Scene, SceneDataset
from rollout.explanations.recording import Recording, record_model
from rollout.maths.metrics import average_precision, mean_interval, peak_on_object
from rollout.maths.rollout import attention_rollout, read_rows
from rollout.models.model import Model
from rollout.settings import DEFAULTS

FAR = 8.0  # times the median column: what is removed
MEASURES = ("peak", "average_precision", "largest_share")
Maps = Callable[[Recording], Mapping[str, Tensor]]


def remedies(recording: Recording) -> dict[str, Tensor]:
    """Attention rollout, what is said to mend it, and two controls: (batch, rows, columns) each."""
    attentions, readout = list(recording.record.distributions), recording.readout(DEFAULTS)
    blocks, prefix = recording.record.blocks, recording.layout.num_prefix_tokens
    by_values = [weigh_by_values(*pair) for pair in zip(attentions, blocks, strict=True)]
    removed = [remove_columns(attention, prefix) for attention in attentions]
    strongest: dict[str, Any] = {"head_fusion": "max", "discard_ratio": 0.9}
    rows = {
        "all blocks": attention_rollout(attentions, readout=readout),
        "from block 2": attention_rollout(attentions, readout=readout, start_block=1),
        "max, discard 0.9": attention_rollout(attentions, readout=readout, **strongest),
        "weighted by values": attention_rollout(by_values, readout=readout),
        "far columns removed": attention_rollout(removed, readout=readout),
        "last block alone": read_rows(readout, attentions[-1].mean(dim=1)),
    }
    maps = {name: recording.layout.to_grid(row).float().cpu() for name, row in rows.items()}
    return maps | controls(maps["all blocks"])


def controls(like: Tensor) -> dict[str, Tensor]:
    """Maps that know nothing of the image: noise, and a hill in the middle."""
    rows, columns = (torch.linspace(-1, 1, size) for size in like.shape[1:])
    centre = torch.exp(-2 * (rows[:, None] ** 2 + columns**2)).expand(like.shape)
    noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(0))
    return {"control: centre": centre, "control: random": noise}


def weigh_by_values(attention: Tensor, block: Block) -> Tensor:
    """Attention times the length of what it moves, rows made to sum to 1 again.

    After Kobayashi et al., "Attention is Not Only a Weight", 2020, without the output's matrix.
    """
    lengths = torch.cat([call.value for call in block.calls], dim=1).float().norm(dim=-1)
    weighted = attention * lengths[:, :, None, :]  # (batch, heads, query, key)
    return weighted / weighted.sum(dim=-1, keepdim=True)


def remove_columns(attention: Tensor, num_prefix_tokens: int) -> Tensor:
    """Patches that draw more than FAR times the median get nothing; rows sum to 1 again."""
    drawn = attention.mean(dim=(1, 2))  # (batch, key)
    far = drawn > FAR * drawn.median(dim=1, keepdim=True).values
    far[:, :num_prefix_tokens] = False
    kept = attention.masked_fill(far[:, None, None, :], 0)
    return kept / kept.sum(dim=-1, keepdim=True)


def judge(
    model: Model, maps: Maps = remedies, *, scenes: int = 60, seed: int, batch_size: int = 10
) -> pd.DataFrame:
    """Measures of each map of each scene, against the patches of all its objects.

    Args:
        maps: makes named maps, (batch, rows, columns), of recorded images.
        scenes: how many of two objects; `seed` draws them.

    Returns:
        A row per scene and map: peak (1 where the largest patch lies on an object),
        average_precision, largest_share (what the largest patch holds of the map).
    """
    dataset = SceneDataset(seed, scenes, objects=2)
    tables = []
    for start in trange(0, scenes, batch_size, desc="scenes", unit="batch"):
        numbers = range(start, min(start + batch_size, scenes))
        batch = [dataset.scene(number) for number in numbers]
        images = [Image.fromarray(scene.image) for scene in batch]
        recording = record_model(model, images, gradients=False)
        coverage = _objects(recording, batch)
        for name, found in maps(recording).items():
            measured = dict(zip(MEASURES, _measure(found, coverage), strict=True))
            tables.append(pd.DataFrame({"scene": numbers, "map": name, **measured}))
    return pd.concat(tables, ignore_index=True)


def _objects(recording: Recording, batch: list[Scene]) -> Tensor:
    """What the objects of each scene cover of each patch, (batch, rows, columns)."""
    masks = [np.any(list(scene.masks.values()), axis=0) for scene in batch]
    return seen_coverage(recording.model, masks, recording.layout)


def _measure(maps: Tensor, coverage: Tensor) -> list[np.ndarray]:
    shares = maps.flatten(1) / maps.sum(dim=(1, 2))[:, None]
    measured = (
        peak_on_object(maps, coverage).float(),
        average_precision(maps, coverage),
        shares.amax(dim=1),
    )
    return [one.numpy() for one in measured]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The mean of each measure with its 95 % interval by bootstrap over scenes, a row per map."""
    return table.groupby("map", sort=False)[list(MEASURES)].agg(_said)


def _said(values: pd.Series) -> str:
    mean, low, high = mean_interval(values.to_numpy())
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def later_starts(recording: Recording) -> dict[str, Tensor]:
    """Attention rollout from each block up, by the first block that counts."""
    return {
        f"from block {start + 1}": recording.relevance(
            "attention_rollout", None, replace(DEFAULTS, start_block=start)
        )
        for start in range(len(recording.record.blocks))
    }
