"""The button that interrupts a kernel, pressed while the explorer works: all goes on as before."""

import random
import time
from collections.abc import Iterator
from queue import Empty

import pytest
from helpers import ROOT
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

START = f"""
import sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "tests")!r}]
import torch
torch.set_num_threads(1)
from torch.overrides import _get_current_function_mode
from helpers import condition, small_vit
from rollout import explore, wrap_model
network = small_vit(depth=4).train()
model = wrap_model(network, labels=list("abcdefg"))
network.train()
before = condition(network)
explorer = explore(model, torch.randn(1, 3, 32, 48))
"""
# New targets need backward passes, new images forward passes.
WORK = """
from rollout.explorer.sources import open_session
image = torch.randn(1, 3, 32, 48)
while True:
    open_session(model, image)
    for number in range(7):
        explorer.controls.classes.wanted = {"target": number, "number": number}
        explorer.controls.discard_ratio.value = number / 10
"""
LOOK = """
assert condition(network) == before, "the network was left changed"
assert _get_current_function_mode() is None and torch.is_grad_enabled()
assert not explorer.controls.quiet
explorer.controls.discard_ratio.value = 0.05 if explorer.view.settings.discard_ratio else 0.15
assert explorer.view.settings.discard_ratio == explorer.controls.discard_ratio.value
assert "problem" not in explorer.status.value
"""


@pytest.fixture
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def finished(client: BlockingKernelClient, number: str) -> str:
    """The name of the error that a cell ended with, and what it said; "" for none."""
    while True:
        try:
            reply = client.get_shell_msg(timeout=60)
        except Empty:
            return "no answer"
        if reply["parent_header"].get("msg_id") == number:
            content = reply["content"]
            return f"{content['ename']} {content['evalue']}" if content["status"] == "error" else ""


@pytest.mark.slow
def test_an_interrupt_leaves_network_and_explorer_in_order(kernel) -> None:
    manager, client = kernel
    assert finished(client, client.execute(START)) == ""
    rng = random.Random(0)
    for _ in range(10):
        number = client.execute(WORK)
        time.sleep(0.1 + 0.2 * rng.random())
        manager.interrupt_kernel()
        assert finished(client, number).startswith("KeyboardInterrupt")
        assert finished(client, client.execute(LOOK)) == ""


def test_after_an_interrupt_the_controls_say_what_is_shown(explorer, monkeypatch) -> None:
    ratio = explorer.controls.discard_ratio
    shown, before = explorer.view, ratio.value

    def interrupted(view: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explorer, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ratio.value = before + 0.3
    assert explorer.view is shown and ratio.value == before
    assert "interrupted" in explorer.status.value and not explorer.controls.quiet
