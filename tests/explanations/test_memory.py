"""What was recorded is gone with the last who holds it: no circle keeps it until Python looks."""

import gc
import weakref

import pytest
import torch
from helpers import small_vit

from rollout import wrap_model
from rollout.explanations.recording import record_model
from rollout.models.model import Model
from rollout.settings import METHODS, Settings

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return wrap_model(small_vit(), image_size=(32, 48))


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_its_recording(model, method):
    gradients = METHODS[method].gradients
    recording = record_model(model, IMAGES, gradients=gradients)
    recording.relevance(method, None, Settings(discard_ratio=0.5))
    calls = [call for block in recording.record.blocks for call in block.calls]
    tensors = [tensor for call in calls for tensor in (call.query, call.key, call.value)]
    left = [weakref.ref(tensor) for tensor in tensors if tensor is not None]
    assert len(left) == 3 * len(calls)
    del recording, calls, tensors
    assert not any(tensor() is not None for tensor in left)
