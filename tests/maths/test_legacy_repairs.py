"""The steps from the published gradient rollout to the corrected one: both ends are known."""

import pytest
import torch
from helpers import random_attention
from torch.testing import assert_close

from rollout import explain, load_model
from rollout.demo.samples import sample_path
from rollout.explanations.recording import record_model
from rollout.maths.legacy import repair_steps
from rollout.maths.rollout import gradient_rollout
from rollout.settings import Settings

TOKENS = 10
BLOCKS = 3


@pytest.fixture
def parts():
    attentions = [random_attention(2, 3, TOKENS) for _ in range(BLOCKS)]
    gradients, earlier = ([torch.randn(2, 3, TOKENS, TOKENS) for _ in attentions] for _ in "ab")
    return attentions, gradients, earlier


def steps(parts, discard_ratio=0.5):
    return repair_steps(*parts, readout=torch.eye(TOKENS)[0], discard_ratio=discard_ratio)


@pytest.mark.parametrize("discard_ratio", [0.0, 0.5])
def test_the_last_step_is_the_library(parts, discard_ratio):
    attentions, gradients, _ = parts
    expected = gradient_rollout(attentions, gradients, discard_ratio=discard_ratio)[:, 0]
    assert_close(steps(parts, discard_ratio)["rows sum to one"], expected)


def test_the_first_call_is_legacy():
    model = load_model("demo", device="cpu")
    image = sample_path("scene_cat_dog")
    recording = record_model(model, image)
    gradients = recording.backward("dog").blocks
    readout = recording.readout(Settings())
    found = repair_steps(recording.record.attentions, gradients, gradients, readout=readout)
    legacy = explain(model, image, target="dog", discard_ratio=0.9, legacy=True).map
    assert_close(recording.layout.to_grid(found["published, first call"]), legacy)


def test_each_repair_changes_the_map(parts):
    maps = list(steps(parts).values())
    for before, after in zip(maps, maps[1:], strict=False):
        assert (before - after).abs().max() > 1e-3


def test_only_the_second_call_depends_on_what_was_asked_before(parts):
    attentions, gradients, earlier = parts
    other = repair_steps(
        attentions, gradients, gradients, readout=torch.eye(TOKENS)[0], discard_ratio=0.5
    )
    changed = [name for name, rows in steps(parts).items() if not torch.equal(rows, other[name])]
    assert changed == ["published, second call"]


def test_the_second_call_goes_on_from_the_first(parts):
    """Its blocks are multiplied onto those of the call before, which knew another target."""
    attentions, gradients, earlier = parts
    twice = steps(parts, 0.0)["published, second call"]
    full = torch.eye(TOKENS)
    rows = [
        repair_steps(attentions, each, each, readout=row, discard_ratio=0.0)[
            "published, first call"
        ]
        for each in (gradients, earlier)
        for row in full
    ]
    now, before = torch.stack(rows[:TOKENS], dim=1), torch.stack(rows[TOKENS:], dim=1)
    assert_close(twice, (now @ before)[:, 0])


def test_a_readout_per_image_is_read_for_each(parts):
    readout = torch.eye(TOKENS)[[3, 7]]
    found = repair_steps(*parts, readout=readout)["rows sum to one"]
    expected = gradient_rollout(parts[0], parts[1], discard_ratio=0.9)
    assert_close(found, torch.stack([expected[0, 3], expected[1, 7]]))
