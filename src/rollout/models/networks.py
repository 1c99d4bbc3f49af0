"""Networks and their weights: timm, a local checkpoint, the bundled demo. Nothing is unpickled."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import Tensor, nn

from rollout.models.checkpoints import read_checkpoint


def create_network(
    name: str,
    checkpoint: str | Path | None = None,
    pretrained: bool = True,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm network with pretrained, checkpointed or random weights; see `models.load_model`."""
    check_name(name)
    options = dict(options or {})
    try:
        return _create_network(name, checkpoint, pretrained, options)
    except ValueError as error:
        if "unexpected keyword argument 'img_size'" not in str(error):
            raise
        del options["img_size"]  # convolutions are not told: they take any size
        return _create_network(name, checkpoint, pretrained, options)


def _create_network(
    name: str, checkpoint: str | Path | None, pretrained: bool, options: Mapping[str, Any]
) -> nn.Module:
    if checkpoint is None:
        return create_pretrained(name, options) if pretrained else _create(name, options)
    state = read_checkpoint(checkpoint)
    network = _create(name, {"num_classes": _num_classes(state), **options})
    load_state(network, state, checkpoint, name)
    return network


def _create(name: str, options: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm cannot make {name!r}: {error}") from error
    except SafetensorError as error:
        raise ValueError(
            f"the cached weights of {name!r} are damaged ({error}); delete them under "
            f"{constants.HF_HUB_CACHE} and load again"
        ) from error


def _num_classes(state: Mapping[str, Tensor]) -> int:
    """As many classes as the checkpoint's classifier has rows; 0 where it has no classifier."""
    for classifier in ("head.weight", "head.fc.weight", "fc.weight"):
        if classifier in state:
            return state[classifier].shape[0]
    return 0


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], path: str | Path, name: str
) -> None:
    """Every tensor must find its place, in the right shape; nothing is reshaped or left random."""
    expected = network.state_dict()
    wrong = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    wrong += [f"{key} is missing" for key in expected if key not in state]
    wrong += [f"{key} is not in the architecture" for key in state if key not in expected]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} does not fit {name!r}: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict(dict(state))


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
            return _create(name, options, pretrained=True)
    except OSError as error:
        if error.errno is not None:  # no room, no permission, no such folder: not the network
            raise
    # The hub's own client retries for half a minute before it gives up, and logs each time.
    if not _is_reachable():
        raise _unreachable(name)
    try:
        return _create(name, options, pretrained=True)
    except HfHubHTTPError as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the Hugging Face hub refused {name!r}: {reason}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreachable(name) from error


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
