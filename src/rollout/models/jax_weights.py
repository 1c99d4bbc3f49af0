"""Original files of JAX (.npz of Google's Vision Transformers), which timm's networks read."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rollout.models.checkpoints import Checkpoint
from rollout.models.strict import NO_SOURCE, Misfit, create_strictly, refusal
from rollout.models.trained import check_classes, trained_size


def fill_from_jax(
    name: str, checkpoint: Checkpoint, sketch: Any, options: Mapping[str, Any]
) -> nn.Module:
    """timm reads such a file itself, and passes over what it does not look for: so we count."""
    table = checkpoint.tables[""]
    stem = next(key for key in table if key.endswith("embedding/kernel"))
    prefix = stem.removesuffix("embedding/kernel")
    own = {key.removeprefix(prefix): table[key] for key in table if key.startswith(prefix)}
    classes = own["head/bias"].numel() if "head/bias" in own else 0
    check_classes(checkpoint, classes, options.get("num_classes"))
    source = NO_SOURCE | {"file": str(checkpoint.path), "custom_load": True}
    positions = next((own[key] for key in own if key.endswith("pos_embedding")), None)
    size = trained_size({} if positions is None else {"pos_embed": positions}, sketch)
    arguments = {**size, **options, "num_classes": classes}
    try:
        network = create_strictly(name, source | {"num_classes": classes}, arguments)
    except Misfit as misfit:
        raise ValueError(refusal(misfit, name, checkpoint, own)) from misfit
    _check_count(name, checkpoint, own, network)
    if options.get("num_classes") == 0 and classes:
        network.reset_classifier(0)
    return network


def _check_count(
    name: str, checkpoint: Checkpoint, own: Mapping[str, Tensor], network: Any
) -> None:
    """As many numbers as the network has, but for what may be resampled or is read by no one."""
    apart = ("pos_embedding", "embedding/kernel", "pre_logits/kernel", "pre_logits/bias")
    found = sum(own[key].numel() for key in own if not key.endswith(apart))
    stem = f"{network.pretrained_cfg['first_conv']}.weight"
    expected = sum(
        value.numel() for key, value in network.named_parameters() if key not in ("pos_embed", stem)
    )
    if found != expected:
        raise ValueError(
            f"{checkpoint.path} does not fit {name!r}: it holds {found} numbers beside the patch "
            f"and position embeddings, expected {expected}; name the architecture that it was made "
            "for"
        )
