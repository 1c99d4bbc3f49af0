"""Attention flow over the sample scenes, beside rollout: how alike, and where cuts bind."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rollout.demo.samples import object_coverage
from rollout.explanations.recording import Recording
from rollout.maths.flow import CUTS, attention_flow
from rollout.maths.metrics import mass_on_object, rank_correlation
from rollout.maths.rollout import attention_rollout
from rollout.settings import DEFAULTS


def flow_scenes(
    recorded: Mapping[str, Recording], starts: Sequence[int], **knobs: Any
) -> pd.DataFrame:
    """Flow and rollout of each scene, through all blocks from each of some starts up.

    Args:
        recorded: as `record_scenes` makes it.
        starts: values of start_block.
        knobs: head_fusion and discard_ratio.

    Returns:
        One row per scene and start, with the columns scene, start_block and
        with rollout, with column sums: rank correlation of the flow with rollout, and with
            `column_sums` of the first block that counts, over the patches;
        input, between, readout: the share of patches whose flow binds at this cut;
        flow on objects, rollout on objects: the share of the map's mass on objects, as a multiple
            of the share of the image that they fill;
        severed: the capacity that the cuts of all patches sever, (blocks + 1,) array as in `Flow`;
        flow, rollout: the maps, (rows, columns) arrays.
    """
    return pd.DataFrame(
        _row(scene, recording, start, knobs)
        for scene, recording in recorded.items()
        for start in starts
    )


def _row(scene: str, recording: Recording, start: int, knobs: Mapping[str, Any]) -> dict[str, Any]:
    attentions, readout = list(recording.record.distributions), recording.readout(DEFAULTS)
    shared = {"start_block": start, "readout": readout, **knobs}
    flow, to_grid = attention_flow(attentions, **shared), recording.layout.to_grid
    maps = {
        "flow": to_grid(flow.values).cpu(),
        "rollout": to_grid(attention_rollout(attentions, **shared)).cpu(),
    }
    sums = to_grid(column_sums(attentions[start], **knobs)).cpu()
    binds = to_grid(flow.cut).flatten().bincount(minlength=len(CUTS)).cpu()
    objects = object_coverage(recording.model, scene, recording.layout)
    patches = to_grid(torch.arange(recording.layout.num_tokens)[None]).flatten()
    return {
        "scene": scene,
        "start_block": start,
        "with rollout": rank_correlation(maps["flow"], maps["rollout"]).item(),
        "with column sums": rank_correlation(maps["flow"], sums).item(),
        **dict(zip(CUTS, (binds / binds.sum()).tolist(), strict=True)),
        **{f"{name} on objects": _times_area(one, objects) for name, one in maps.items()},
        "severed": flow.severed[0, patches].sum(dim=0).cpu().numpy(),
        **{name: one[0].numpy() for name, one in maps.items()},
    }


def column_sums(attention: Tensor, **knobs: Any) -> Tensor:
    """How much of all tokens' attention each one gets in a block, residual included, at most 1.

    No flow through this block and those above it can exceed it.

    Args:
        attention: (batch, heads, query, key).

    Returns:
        (batch, key).
    """
    tokens = attention.shape[-1]
    mean_row = attention_rollout([attention], readout=torch.full([tokens], 1 / tokens), **knobs)
    return (tokens * mean_row).clamp(max=1)


def _times_area(found: Tensor, objects: Tensor) -> float:
    return (mass_on_object(found, objects) / objects.mean()).item()


def swap_deep_blocks(recorded: Mapping[str, Recording], **knobs: Any) -> pd.DataFrame:
    """Maps whose deeper half of the blocks is taken from the next scene.

    Returns:
        One row per scene: the rank correlation of its flow and of its rollout with those through
        its own blocks. A map that depends on the deep blocks has a low one.
    """
    scenes = list(recorded)
    rows = {
        scene: _swapped(recorded[scene], recorded[other], knobs)
        for scene, other in zip(scenes, scenes[1:] + scenes[:1], strict=True)
    }
    return pd.DataFrame(rows).T


def _swapped(recording: Recording, other: Recording, knobs: Mapping[str, Any]) -> dict[str, float]:
    own, foreign = list(recording.record.distributions), list(other.record.distributions)
    shared = {"readout": recording.readout(DEFAULTS), **knobs}
    mixed = own[: len(own) // 2] + foreign[len(own) // 2 :]
    pairs = {
        "flow": [attention_flow(blocks, **shared).values for blocks in (own, mixed)],
        "rollout": [attention_rollout(blocks, **shared) for blocks in (own, mixed)],
    }
    to_grid = recording.layout.to_grid
    return {
        name: rank_correlation(*(to_grid(one).cpu() for one in pair)).item()
        for name, pair in pairs.items()
    }
