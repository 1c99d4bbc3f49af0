"""Training: it learns, it resumes to the same weights, and its export is loaded again."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from rollout.demo.scenes import CLASSES
from rollout.demo.training import TrainingSettings, export, learning_rate, train
from rollout.models.load import load_demo

TINY = TrainingSettings(steps=4, depth=1, batch_size=2, full_image_steps=2, warmup_steps=2)


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    whole = train(TINY, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(2, monkeypatch)
        train(TINY, tmp_path / "cut.pt", save_every=1)
    monkeypatch.undo()
    state = torch.load(tmp_path / "cut.pt", weights_only=True)
    assert state["step"] == 2
    resumed = train(TINY, tmp_path / "cut.pt")
    for (name, ours), theirs in zip(
        resumed.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


def interrupt_after(steps, monkeypatch):
    """What Ctrl-C in the middle of a run does, at a known step."""
    from rollout.demo import training

    plain = training._step

    def counted(network, optimizer, settings, step, images, labels):
        if step == steps:
            raise KeyboardInterrupt
        return plain(network, optimizer, settings, step, images, labels)

    monkeypatch.setattr(training, "_step", counted)


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = train(TINY, tmp_path / "c.pt").state_dict()
    again = train(TINY, tmp_path / "c.pt").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(TINY, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="was trained with .*use the same settings"):
        train(replace(TINY, seed=1), tmp_path / "c.pt")


def test_the_learning_rate_warms_up_and_falls():
    settings = TrainingSettings(steps=100, warmup_steps=10)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02 * settings.learning_rate, rel=0.05)


def test_a_few_steps_lower_the_loss_on_the_same_scenes(tmp_path):
    from rollout.demo.training import _batches, _step, build_network, create_optimizer_v2

    settings = replace(TINY, steps=1, batch_size=8, full_image_steps=1, warmup_steps=1)
    network = build_network(settings)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3)
    images, labels = next(_batches(settings, 0))
    losses = [_step(network, optimizer, settings, 0, images, labels) for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_export_is_loaded_as_it_was_trained(tmp_path):
    network = train(TINY, tmp_path / "c.pt")
    card = export(network, TINY, {"gradient_rollout": {"scenes": 1.0}}, tmp_path / "x.safetensors")
    loaded, classes = load_demo(tmp_path / "x.safetensors")
    assert classes == CLASSES
    for name, tensor in network.state_dict().items():
        assert_close(loaded.state_dict()[name], tensor.half().float(), rtol=0, atol=0)
    assert json.loads(card.read_text())["training"]["steps"] == 4


def test_damaged_weights_are_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    export(train(TINY, tmp_path / "c.pt"), TINY, {}, file)
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="is damaged: its hash is not the one in x.json"):
        load_demo(file)
