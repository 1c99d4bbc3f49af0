"""Networks of timm by name, with pretrained or random weights. Nothing is unpickled."""

import json
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

from rollout.errors import shown
from rollout.models.checkpoints import ONE_AT_A_TIME, check_folder
from rollout.names import one_line

REACHABLE_WITHIN = 5.0  # seconds

OWN_MODELS = ("demo", "dinov2_small", "dinov2_scenes")  # what `load_model` has beside timm's

LONGEST_REASON = 400  # letters of what timm or torch says


def create(name: str, options: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """timm's network of that name; `img_size` goes only to those that want to be told.

    Raises:
        ValueError: timm cannot make it; what timm raised is the cause.
        OSError: as the hub or the system raised it.
    """
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, MemoryError):
        raise
    except SafetensorError as error:
        folder = name.removeprefix("local-dir:")
        where = folder if folder != name else constants.HF_HUB_CACHE
        raise ValueError(
            f"the cached weights of {name!r} are damaged ({error}); delete them under "
            f"{where} and load again"
        ) from error
    except Exception as error:  # a configuration from elsewhere makes timm raise nearly anything
        if "unexpected keyword argument 'img_size'" in str(error) and "img_size" in options:
            # Convolutions are not told: they take any size.
            options = {key: value for key, value in options.items() if key != "img_size"}
            return create(name, options, pretrained=pretrained)
        raise ValueError(f"timm cannot make {name!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args == ("architecture",):
        return (
            "its config.json names no architecture of timm; a network of Hugging Face's "
            "transformers goes to wrap_model(AutoModelForImageClassification.from_pretrained(...))"
        )
    known = isinstance(error, AssertionError | RuntimeError | TypeError | ValueError)
    message = one_line(error, most=LONGEST_REASON)
    return message if known and message else f"{type(error).__name__} {message}".strip()


def check_name(name: str) -> None:
    """Refuse what neither we nor timm know, with the nearest names."""
    if not isinstance(name, str):
        raise TypeError(
            f"a model name must be a string, got {type(name).__name__}; wrap_model takes a network"
        )
    if name in OWN_MODELS:
        return
    if name.startswith("local-dir:"):
        return _check_local(Path(name.removeprefix("local-dir:")))
    architecture = name.split(".")[0]
    if name.startswith(("hf-hub:", "hf_hub:")) or timm.is_model(architecture):
        return
    known = [*OWN_MODELS, *timm.list_models()]
    close = get_close_matches(architecture, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise ValueError(f"unknown model {shown(name)}; {hint} (or 'demo', which needs no download)")


def _check_local(folder: Path) -> None:
    """A folder that timm wrote: its config.json names an architecture, and says how it was made."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder {folder}")
    file = folder / "config.json"
    if not file.is_file():
        check_folder(folder)
        raise FileNotFoundError(f"no config.json in the model folder {folder}; timm writes one")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ValueError(
            f"{file} names no architecture of timm; a folder of Hugging Face's transformers goes "
            "to wrap_model(AutoModelForImageClassification.from_pretrained(folder))"
        )
    for key in ("pretrained_cfg", "model_args"):
        if not isinstance(config.get(key, {}), dict):
            raise ValueError(f"{file} gives {key} as {config[key]!r}, expected a table of settings")
    if not timm.is_model(config["architecture"]):
        raise ValueError(
            f"{file} names the architecture {config['architecture']!r}, which timm does not know"
        )


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


def create_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A timm network with its pretrained weights; one thread at a time.

    Raises:
        ValueError: timm has no such network or weights, or the hub refuses them.
        ConnectionError: the weights are neither in the local cache nor within reach.
    """
    with ONE_AT_A_TIME:  # the hub's offline mode belongs to the process
        try:
            with _cache_only():
                return create(name, options, pretrained=True)
        except OSError as error:
            if error.errno is not None:  # no room, no permission, no such folder: not the network
                raise
        # The hub's own client retries for half a minute before it gives up, and logs each time.
        if not _is_reachable():
            raise _unreachable(name)
        return _download(name, options)


def _download(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        return create(name, options, pretrained=True)
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
