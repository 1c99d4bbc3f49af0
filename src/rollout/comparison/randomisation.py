"""Sanity check: a map of what the network learned must change when the weights are randomised.

Cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", 2018: the classifier
first, then block after block from the last to the first. Entries of each weight change places, so
that every layer keeps its scale.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from rollout.capture.attention_record import AttentionRecord
from rollout.capture.kept_tokens import block_names
from rollout.capture.observation import bare
from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.comparison.rows import Rows, blind_maps, maps_of
from rollout.explanations.recording import record_prepared
from rollout.maths.metrics import rank_correlation
from rollout.models.model import Model

SIMILARITY = "similarity after randomisation"  # `step`: share of classifier and blocks
RANDOMISED = "similarity with random weights"  # mean over the steps
STAGES = 4  # of the blocks, beside the classifier alone


def measure_randomisation(model: Model, plan: Plan, cases: Cases) -> Rows:
    """Rows of each image's first target."""
    rows, target = Rows(model, cases), cases.targets[0]
    recording = record_prepared(model, cases.images)
    original = maps_of(recording, plan.candidates, target, blind_maps(recording, plan.candidates))
    similar: dict[tuple[str, str], list[torch.Tensor]] = {key: [] for key in original}
    for share, network in randomised(model.network, recording.record):
        other = record_prepared(replace(model, network=network), cases.images)
        maps = maps_of(other, plan.candidates, target, blind_maps(other, plan.candidates))
        for key, made in maps.items():
            similar[key].append(rank_correlation(original[key], made))
            rows.add(0, key, {SIMILARITY: similar[key][-1]}, share)
    for key, values in similar.items():
        rows.add(0, key, {RANDOMISED: torch.stack(values).nanmean(dim=0)})
    return rows


def randomised(network: nn.Module, record: AttentionRecord) -> Iterator[tuple[float, nn.Module]]:
    """A copy of the network, more and more of it randomised from the top, always the same way.

    Yields:
        The share of classifier and blocks that is randomised, and the copy, which changes with the
        next one.
    """
    blocks, copy = block_names(network, record), deepcopy(bare(network))
    generator = torch.Generator().manual_seed(0)
    total, done = len(blocks) + 1, 0
    if record.answer is not None:
        shuffle(copy.get_submodule(record.answer.module), generator)
        done = 1
        yield done / total, copy
    for stage in range(STAGES):
        first, last = (len(blocks) * part // STAGES for part in (stage, stage + 1))
        for name in blocks[::-1][first:last]:
            shuffle(copy.get_submodule(name), generator)
            done += 1
        if first < last:
            yield done / total, copy


@torch.no_grad()
def shuffle(module: nn.Module, generator: torch.Generator) -> None:
    """The entries of each parameter change places among themselves."""
    for parameter in module.parameters():
        order = torch.randperm(parameter.numel(), generator=generator)
        shuffled = parameter.flatten()[order.to(parameter.device)]
        parameter.copy_(shuffled.view_as(parameter))
