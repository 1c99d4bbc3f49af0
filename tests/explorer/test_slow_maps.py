"""Maps that take seconds are computed beside the kernel's loop, and can be left."""

import asyncio
import threading
import time

import numpy as np
import pytest
import torch
from explorers import WIDE, problem

from rollout import explore
from rollout.explanations import kept_maps
from rollout.explorer.slow import Interrupted, Slow
from rollout.explorer.sources import open_session
from rollout.settings import Settings


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never became true")


@pytest.fixture
def slow(small, tmp_path, monkeypatch):
    """An explorer whose flow takes ten seconds; what became of each computation."""
    made, ends = explore(small, WIDE, output_folder=tmp_path), []
    solve = made.session.recording.relevance

    def relevance(method, target, settings, progress):
        try:
            for step in range(1000 if slow_enough.is_set() else 1):
                time.sleep(0.01)
                progress(step / 1000)
        except Interrupted:
            ends.append("left")
            raise
        ends.append(threading.current_thread().name)
        return solve(method, target, settings)

    slow_enough = threading.Event()
    slow_enough.set()
    monkeypatch.setattr(
        type(made.session.recording), "relevance", lambda _, *args: relevance(*args)
    )
    yield made, ends, slow_enough
    made.close()


def test_another_choice_does_not_wait_for_the_flow(slow):
    made, ends, slow_enough = slow
    controls, status = made.controls, made.status

    async def hands():
        before = made.view
        controls.method.value = "attention_flow"
        assert made.view == before and made.wanted.method == "attention_flow"
        assert controls.stop.layout.display == ""
        await until(lambda: "patch by patch: 2%" in status.value)
        controls.discard_ratio.value = 0.25  # still of the flow, and the first is left
        await until(lambda: ends == ["left"])
        controls.method.value = "raw_attention"
        assert (made.view.method, made.view.settings.discard_ratio) == ("raw_attention", 0.25)
        assert controls.stop.layout.display == "none" and "patch by patch" not in status.value
        controls.method.value = "attention_flow"
        await until(lambda: ends == ["left"] * 2 and "patch by patch: " in status.value)
        controls.stop.click()
        assert controls.method.value == "raw_attention"
        await until(lambda: ends == ["left"] * 3)
        slow_enough.clear()
        controls.method.value = "attention_flow"
        await until(lambda: made.view.method == "attention_flow")

    asyncio.run(hands())
    assert ends[3].startswith("rollout-slow") and not problem(made)
    expected = made.session.relevance("attention_flow", None, made.view.settings)
    assert made.canvas.maps.startswith(expected.astype("<f4").tobytes())


def test_code_that_asks_for_the_picture_waits_for_it(slow):
    made, ends, slow_enough = slow
    slow_enough.clear()

    async def a_cell():
        made.controls.method.value = "attention_flow"
        assert 'method="attention_flow"' in made.code

    asyncio.run(a_cell())
    assert made.view.method == "attention_flow" and len(ends) == 1


def test_an_error_in_the_thread_is_a_sentence(slow, monkeypatch):
    made, _, _ = slow

    def fail(*_):
        raise ValueError("no such flow")

    monkeypatch.setattr(type(made.session.recording), "relevance", fail)

    async def hands():
        before = made.view
        made.controls.method.value = "attention_flow"
        await until(lambda: problem(made))
        assert made.view == made.wanted == before and "no such flow" in made.status.value

    asyncio.run(hands())
    assert made.controls.method.value == made.view.method


def test_without_a_loop_the_result_is_there_at_once():
    told, done = [], []
    Slow(told.append).start(lambda report: report(0.5) or 7, lambda one: done.append(one.result()))
    assert (told, done) == ([0.5], [7])


def test_steps_of_milliseconds_run_on_one_thread(small, monkeypatch):
    session, seen = open_session(small, WIDE), []
    discard = kept_maps.discard_lowest

    def watched(matrix, ratio):
        seen.append(torch.get_num_threads())
        return discard(matrix, ratio)

    monkeypatch.setattr(kept_maps, "discard_lowest", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one = session.relevance("attention_rollout", None, Settings(discard_ratio=0.5))
        assert seen == [1] * 3 and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert np.isfinite(one).all() and one.any()
