"""Deletion and insertion: what the network says when patches, or pixels, go in a map's order."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rollout.capture.kept_tokens import answer, answer_to_patches, block_names
from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.comparison.rows import Key, Rows, all_maps
from rollout.errors import UnsupportedNetworkError
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
MOST_GONE = 0.9
CURVE = "curve"  # one of its points; `step` is the share that is gone, or that is back

Answer = Callable[[Tensor], Tensor]  # kept places (batch, some) -> logits (batch, classes)


def measure_tokens(model: Model, plan: Plan, cases: Cases) -> Rows:
    """Patches are dropped before the first block."""
    recording = record_prepared(model, cases.images)
    ask, least = _dropping(recording), 0 if recording.layout.num_prefix_tokens else 1
    return _measure(recording, plan, cases, ask, lambda made: made.flatten(1), least, "tokens")


def _dropping(recording: Recording) -> Answer:
    layout, network = recording.layout, recording.model.network
    block = block_names(network, recording.record)[0]

    def ask(kept: Tensor) -> Tensor:
        place = {"tokens": layout.num_tokens, "prefix": layout.num_prefix_tokens}
        return answer_to_patches(network, recording.images, kept, block=block, **place)

    return ask


def drops_patches(model: Model) -> bool:
    """Whether the network can go on with some of its patches; tried on a black image."""
    recording = record_prepared(model, model.black_image(), gradients=False)
    try:
        _dropping(recording)(torch.zeros(1, 1, dtype=torch.long))
    except UnsupportedNetworkError:
        return False
    return True


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
    whole = recording.record.logits.cpu()
    cases = _stronger(cases, whole)
    rows, steps = Rows(recording.model, cases), (0.0, *plan.steps, 1.0)
    empty = None if least else ask(torch.zeros(len(whole), 0, dtype=torch.long)).cpu()
    for key, made in all_maps(recording, plan.candidates, cases, most=1)[0].items():
        order = rank_places(flat(made))
        nothing = ask(order[:, :least].sort(dim=1).values).cpu() if empty is None else empty
        deleted = [ask(kept_by_deletion(order, step, least)).cpu() for step in plan.steps]
        inserted = [ask(kept_by_insertion(order, step, least)).cpu() for step in plan.steps]
        curves = {
            DELETION: torch.stack([whole, *deleted, nothing], dim=1),
            INSERTION: torch.stack([nothing, *inserted, whole], dim=1),
        }  # (batch, steps, classes)
        for curve, logits in curves.items():
            _add_curve(rows, key, f"{curve}{{}}, {what}", steps, logits)
        _add_perturbation(rows, key, what, steps, curves)
    return rows


def _add_curve(rows: Rows, key: Key, name: str, steps: Sequence[float], logits: Tensor) -> None:
    """The target's probability at each step, and the area under it."""
    probability = torch.stack([rows.model.probabilities(one) for one in logits])
    index = rows.cases.targets[0][:, None, None].expand(-1, len(steps), 1)
    chosen = probability.gather(2, index).squeeze(2).double()  # (batch, steps)
    rows.add(0, key, {name.format(""): area_under_curve(steps, chosen)})
    for place, step in enumerate(steps):
        rows.add(0, key, {name.format(f" {CURVE}"): chosen[:, place]}, step)


def _add_perturbation(
    rows: Rows, key: Key, what: str, steps: Sequence[float], curves: Mapping[str, Tensor]
) -> None:
    """Chefer's areas: how often the target is the top class while up to MOST_GONE are gone.

    When the least relevant have gone, those are left that insertion brings back first.
    """
    target = rows.cases.targets[0][:, None]
    top = {curve: (logits.argmax(dim=2) == target).double() for curve, logits in curves.items()}
    gone = [1 - step for step in reversed(steps)]
    for name, shares, values in (
        (POSITIVE, steps, top[DELETION]),
        (NEGATIVE, gone, top[INSERTION].flip(1)),
    ):
        count = sum(share < MOST_GONE + 1e-6 for share in shares)
        area = area_under_curve(shares[:count], values[:, :count])
        rows.add(0, key, {f"{name}, {what}": area})


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
