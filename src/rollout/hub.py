"""timm's pretrained networks: from the local Hugging Face cache, and only else from the network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import nn

REACHABLE_WITHIN = 5.0  # seconds


def check_name(name: str) -> None:
    """Refuse what timm does not know, with the nearest names that it does."""
    if not isinstance(name, str):
        raise TypeError(
            f"a model name must be a string, got {type(name).__name__}; wrap_model takes a network"
        )
    folder = Path(name.removeprefix("local-dir:"))
    if name.startswith("local-dir:") and not folder.is_dir():
        raise FileNotFoundError(f"no model folder {folder}")
    architecture = name.split(".")[0]
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or timm.is_model(architecture):
        return
    close = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise ValueError(f"unknown model {name!r}; {hint} (or 'demo', which needs no download)")


def create_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A timm network with its pretrained weights.

    Raises:
        ValueError: timm has no such network or weights, or the hub refuses them.
        ConnectionError: the weights are neither in the local cache nor within reach.
    """
    try:
        with _cache_only():
            return _create(name, options)
    except OSError as error:
        if error.errno is not None:  # no room, no permission, no such folder: not the network
            raise
    # The hub's own client retries for half a minute before it gives up, and logs each time.
    if not _is_reachable():
        raise _unreachable(name)
    try:
        return _create(name, options)
    except HfHubHTTPError as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the Hugging Face hub refused {name!r}: {reason}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreachable(name) from error


def _create(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm cannot make {name!r}: {error}") from error
    except SafetensorError as error:
        raise ValueError(
            f"the cached weights of {name!r} are damaged ({error}); delete them under "
            f"{constants.HF_HUB_CACHE} and load again"
        ) from error


@contextmanager
def _cache_only() -> Iterator[None]:
    """The hub's offline mode: what the cache holds is used as it is, without asking the network."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=REACHABLE_WITHIN)
    except Exception:  # the HTTP library under the hub changes with its version, and so its errors
        return False
    return True


def _unreachable(name: str) -> ConnectionError:
    return ConnectionError(
        f"the weights of {name!r} are not in the local cache and the Hugging Face hub cannot be "
        "reached; connect once so that they are kept, or pass checkpoint=FILE (--checkpoint), "
        "or use the model 'demo', which is bundled"
    )
