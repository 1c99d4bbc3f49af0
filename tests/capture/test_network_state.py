"""What a pass changes on a network is put back: whatever thread, exception or signal comes."""

import contextlib
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import condition, left_as_it_was, small_vit
from torch import nn
from torch.overrides import _get_current_function_mode

from rollout import VITAttentionRollout
from rollout.capture import forward_pass, network_state, observation
from rollout.capture.forward_pass import record_attention
from rollout.capture.network_state import changed, interruptible, signals_wait
from rollout.explanations.explaining import explain
from rollout.models.load import wrap_model


def test_eight_threads_on_one_network_in_training_mode_make_the_maps_of_one():
    network = small_vit(drop_rate=0.5, proj_drop_rate=0.5)
    model = wrap_model(network)
    images = [torch.randn(1, 3, 32, 48) for _ in range(24)]
    expected = [explain(model, image, target=1).map for image in images]
    network.train()
    network.head.requires_grad_(False)
    with left_as_it_was(network), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: explain(model, image, target=1).map, images))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_threads_that_reproduce_published_pictures_do_not_mix():
    network = small_vit(img_size=(32, 32), drop_rate=0.5)
    rollout = VITAttentionRollout(network, legacy=True)
    images = [torch.randn(1, 3, 32, 32) for _ in range(16)]
    expected = [rollout(image) for image in images]
    with left_as_it_was(network.train()), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rollout, images))
    assert np.array_equal(np.stack(found), np.stack(expected))


def test_the_last_of_several_puts_a_shared_part_back():
    """Two networks around one backbone: the first to leave must not switch its dropout on."""
    backbone = small_vit().train()
    one, other = nn.Sequential(backbone), nn.Sequential(backbone, nn.Dropout())
    first, second = (changed(network_state.frozen(network)) for network in (one, other))
    with left_as_it_was(other):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not backbone.training and one.training
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
        second.__exit__(None, None, None)


def test_what_cannot_be_changed_leaves_the_rest_as_it_was():
    network = small_vit().train()
    changes = [*network_state.frozen(network), (network, "no_such_attribute", 1)]
    with left_as_it_was(network), pytest.raises(AttributeError), changed(changes):
        raise AssertionError("not reached")


OURS = (forward_pass, network_state, observation, contextlib)
WATCHED = {module.__file__ for module in OURS}


def interrupted_at(step: int, network: nn.Module, images: torch.Tensor) -> tuple[bool, int]:
    """Ctrl-C at one of the steps of our own code; whether it was heard, and how many there are."""
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in WATCHED:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == step:
                handler: Any = signal.getsignal(signal.SIGINT)
                handler(signal.SIGINT, frame)  # as Python calls it, in front of an instruction
        return watch

    sys.settrace(watch)
    try:
        record_attention(network, images)
    except KeyboardInterrupt:
        return True, count
    finally:
        sys.settrace(None)
    return False, count


def test_an_interrupt_at_any_step_leaves_no_trace():
    network, images = small_vit(depth=1).train(), torch.randn(1, 3, 32, 48)
    before, handler = condition(network), signal.getsignal(signal.SIGINT)
    heard, total = interrupted_at(-1, network, images)
    assert not heard and total > 500
    for step in range(1, total + 1, max(total // 250, 1)):
        heard, _ = interrupted_at(step, network, images)
        assert heard, step
        assert condition(network) == before, step
        assert _get_current_function_mode() is None
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert signal.getsignal(signal.SIGINT) is handler
        assert not network_state._CHANGED


def test_a_signal_waits_unless_the_network_is_at_work():
    done = []
    with pytest.raises(KeyboardInterrupt), signals_wait():
        signal.raise_signal(signal.SIGINT)
        done.append("after the signal")
    assert done == ["after the signal"]
    with pytest.raises(KeyboardInterrupt), signals_wait():
        interruptible(lambda: signal.raise_signal(signal.SIGINT))
        done.append("never")
    assert done == ["after the signal"]


def test_other_threads_leave_the_signals_alone():
    handler = signal.getsignal(signal.SIGINT)
    seen = []

    def look() -> None:
        with signals_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [handler]
