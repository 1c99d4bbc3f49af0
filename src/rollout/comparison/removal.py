"""Deletion and insertion: what the network says when patches, or pixels, go in a map's order."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rollout.capture.kept_tokens import answer, answer_to_patches, block_names
from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.comparison.rows import Rows, all_maps
from rollout.explanations.recording import Recording, record_prepared
from rollout.maths.perturbation import (
    area_under_curve,
    as_mask,
    kept_by_deletion,
    kept_by_insertion,
    rank_places,
)
from rollout.maths.placement import stretch
from rollout.models.model import Model

DELETION, INSERTION = "deletion", "insertion"
POSITIVE, NEGATIVE = "positive perturbation", "negative perturbation"
CURVE = "curve"  # one of its points; `step` is the share that is gone, or that is back

Answer = Callable[[Tensor], Tensor]  # kept places (batch, some) -> logits (batch, classes)


def measure_tokens(model: Model, plan: Plan, cases: Cases) -> Rows:
    """Patches are dropped before the first block."""
    recording = record_prepared(model, cases.images)
    layout = recording.layout
    block = block_names(model.network, recording.record)[0]

    def ask(kept: Tensor) -> Tensor:
        return answer_to_patches(
            model.network,
            cases.images,
            kept,
            block=block,
            tokens=layout.num_tokens,
            prefix=layout.num_prefix_tokens,
        )

    least = 0 if layout.num_prefix_tokens else 1
    return _measure(recording, plan, cases, ask, lambda made: made.flatten(1), least, "tokens")


def measure_pixels(model: Model, plan: Plan, cases: Cases) -> Rows:
    """Pixels turn black, in the order of the map stretched to the image."""
    recording = record_prepared(model, cases.images)
    size = (cases.images.shape[2], cases.images.shape[3])
    black = model.black_image()

    def ask(kept: Tensor) -> Tensor:
        seen = as_mask(kept, size).unsqueeze(1).to(black.device)
        return answer(model.network, torch.where(seen, cases.images, black))

    def flat(made: Tensor) -> Tensor:
        return stretch(made, size, recording.layout.extent, size).flatten(1)

    return _measure(recording, plan, cases, ask, flat, 0, "pixels")


def _measure(
    recording: Recording,
    plan: Plan,
    cases: Cases,
    ask: Answer,
    flat: Callable[[Tensor], Tensor],
    least: int,
    what: str,
) -> Rows:
    """Rows of each image's stronger target, which the network predicts if it is right."""
    cases = _stronger(cases, recording.record.logits.cpu())
    rows = Rows(recording.model, cases)
    target = cases.targets[0]
    for key, made in all_maps(recording, plan.candidates, cases, most=1)[0].items():
        order = rank_places(flat(made))
        for curve, kept in ((DELETION, kept_by_deletion), (INSERTION, kept_by_insertion)):
            steps = [0.0, *plan.steps, 1.0]
            logits = torch.stack([ask(kept(order, step, least)).cpu() for step in steps], dim=1)
            probability, top = _read(recording.model, logits, target)
            rows.add(0, key, {f"{curve}, {what}": area_under_curve(steps, probability)})
            rows.add(0, key, _perturbation(curve, what, steps, top))
            for place, step in enumerate(steps):
                rows.add(0, key, {f"{curve} {CURVE}, {what}": probability[:, place]}, step)
    return rows


def _stronger(cases: Cases, logits: Tensor) -> Cases:
    """The target of the higher logit comes first, the others after it."""
    scores = logits.gather(1, cases.targets.T).T  # (T, batch)
    order = scores.masked_fill(~cases.given, -torch.inf).argsort(dim=0, descending=True)
    places = torch.arange(order.shape[1])
    return Cases(
        cases.names,
        cases.seeds,
        cases.images,
        cases.targets[order, places],
        cases.given[order, places],
        cases.masks[order, places],
    )


def _read(model: Model, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The target's probability, and whether it is the top class: (batch, steps) each."""
    probability = torch.stack([model.probabilities(one) for one in logits])
    index = target[:, None, None].expand(-1, logits.shape[1], 1)
    chosen = probability.gather(2, index).squeeze(2).double()
    return chosen, (logits.argmax(dim=2) == target[:, None]).double()


def _perturbation(curve: str, what: str, steps: Sequence[float], top: Tensor) -> dict[str, Tensor]:
    """Chefer's areas: how often the answer stays while up to nine tenths go.

    What is left when the least relevant go is what insertion has when as many are back.
    """
    if curve == DELETION:
        return {f"{POSITIVE}, {what}": area_under_curve(steps[:-1], top[:, :-1])}
    gone = [1 - step for step in reversed(steps)]
    values = top.flip(1)
    return {f"{NEGATIVE}, {what}": area_under_curve(gone[:-1], values[:, :-1])}
