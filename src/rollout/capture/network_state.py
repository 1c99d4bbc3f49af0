"""What one pass changes on a network, put back on every path: exceptions, threads, Ctrl-C.

Several threads may run one network at a time: the first to come changes the state, the last to go
puts it back. A signal that arrives while state is changed waits until that is done.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _len_torch_function_stack,
    _pop_mode,
    _push_mode,
)

_LOCK = threading.RLock()
# (object, attribute) -> how many passes need the change, the object, its own value.
_CHANGED: dict[tuple[int, str], tuple[int, Any, Any]] = {}

Change = tuple[Any, str, Any]  # object, attribute, value for the time of the pass


@contextmanager
def changed(changes: Iterable[Change]) -> Iterator[None]:
    """Attributes with other values; an attribute that others hold changed is put back by the last.

    Signals must wait meanwhile; see `signals_wait`.
    """
    held: list[tuple[int, str]] = []
    try:
        with _LOCK:
            for holder, attribute, value in changes:
                _change(holder, attribute, value, held)
        yield
    finally:
        with _LOCK:
            for key in reversed(held):
                _put_back(key)


def _change(holder: Any, attribute: str, value: Any, held: list[tuple[int, str]]) -> None:
    key = (id(holder), attribute)
    if key in _CHANGED:
        count, _, own = _CHANGED[key]
    elif (own := getattr(holder, attribute)) == value:
        return
    else:
        count = 0
        setattr(holder, attribute, value)
    _CHANGED[key] = (count + 1, holder, own)
    held.append(key)


def _put_back(key: tuple[int, str]) -> None:
    count, holder, own = _CHANGED.pop(key)
    if count > 1:
        _CHANGED[key] = (count - 1, holder, own)
    else:
        setattr(holder, key[1], own)


def frozen(network: nn.Module) -> Iterator[Change]:
    """Eval mode, parameters without gradient, no activation checkpointing."""
    # Offloaded weights are other parameters after a pass than before it.
    modules = list(network.modules())
    offloaded = any(hasattr(module, "_hf_hook") for module in modules)
    for module in modules:
        for parameter in [] if offloaded else module._parameters.values():
            # Those made in inference mode torch would not let us put back.
            if parameter is not None and not parameter.is_inference():
                yield parameter, "requires_grad", False
        yield module, "training", False
        for flag in ("grad_checkpointing", "gradient_checkpointing"):
            if isinstance(vars(module).get(flag), bool):
                yield module, flag, False


@contextmanager
def seen_by(mode: TorchFunctionMode) -> Iterator[None]:
    """The mode on top of torch's stack, which is put back as it was.

    torch takes modes off the stack for the time of a call; an interrupt in the midst of that would
    leave one on it, or take one too many.
    """
    before = _get_current_function_mode_stack()
    try:
        _push_mode(mode)
        yield
    finally:
        while _len_torch_function_stack():
            _pop_mode()
        for one in before:
            _push_mode(one)


class _Waiting(threading.local):
    """Whether this thread's signals wait, and the one that did."""

    active = False
    arrived: tuple[int, FrameType | None] | None = None
    handler: Callable[[int, FrameType | None], Any] = signal.default_int_handler


_WAITING = _Waiting()


def interruptible(call: Callable[[], Any]) -> Any:
    """What a signal may interrupt although `signals_wait` is around it: the network's own work."""
    return call()


@contextmanager
def signals_wait() -> Iterator[None]:
    """Ctrl-C is heard inside `interruptible` at once, and elsewhere when this context is left.

    Only the main thread receives signals; in others nothing happens.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or _WAITING.active or not callable(before):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if _inside(interruptible, frame) and not _at_the_switch(frame):
            before(number, frame)  # raises KeyboardInterrupt, as a rule
        else:
            _WAITING.arrived = number, frame

    try:
        _WAITING.active, _WAITING.arrived, _WAITING.handler = True, None, before
        signal.signal(signal.SIGINT, handle)
        yield
    finally:
        _WAITING.active = False
        signal.signal(signal.SIGINT, before)
        hear_signals()


def hear_signals() -> None:
    """Where it can be heard again: deliver a signal that waits, to the handler that is not ours."""
    if _WAITING.arrived is not None:
        arrived, _WAITING.arrived = _WAITING.arrived, None
        _WAITING.handler(*arrived)


def _at_the_switch(frame: FrameType | None) -> bool:
    """In the midst of taking a mode off torch's stack or putting it back."""
    return frame is not None and frame.f_code.co_filename in _SWITCH


_SWITCH = (contextlib.__file__, torch.overrides.__file__)


def _inside(function: Callable, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is function.__code__:
            return True
        frame = frame.f_back
    return False
