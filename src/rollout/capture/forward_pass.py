"""Run any Vision Transformer once, record the attention of every block, and leave no trace."""

import re
import warnings
from typing import Any

from torch import Tensor, nn

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.attention_record import AttentionRecord
from rollout.capture.first_attention import mark_channels
from rollout.capture.observation import bare, observe
from rollout.capture.token_graph import token_graph
from rollout.capture.unruled import unruled
from rollout.errors import UnsupportedNetworkError
from rollout.settings import Backward, check_backward

# Where networks keep what they make of an image, the last word first.
LOGITS = ("logits", "image_embeds", "image_features", "pooler_output", "last_hidden_state")


def record_attention(
    network: nn.Module, images: Tensor, *, gradients: bool = True, backward: Backward = "plain"
) -> AttentionRecord:
    """Run the network once, in eval mode, and record the attention of all blocks.

    The network is left as it was: mode, `requires_grad`, `.grad`, hooks, also after an exception.
    Where heads are as wide as there are patches, it is run once more as far as the first attention,
    to see which axis the tokens are.

    Args:
        network: any eager module whose blocks call `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, or multiply a softmax with the values, by `@` or `einsum`.
        images: what the network takes, (batch, channels, height, width).
        gradients: keep what `AttentionRecord.gradients` needs; False is faster and leaner.
        backward: how gradients are taken: "plain" is the derivative, "libra" the rules of LibraGrad
            (`backward_rules`), by which input times gradient is conserved. Logits and attention are
            the same to the bit. A score of your own is differentiated as it is written.

    Raises:
        UnsupportedNetworkError: no attention was seen, or none that can be rolled out.
    """
    _check_images(network, images)
    check_backward(backward)
    network = bare(network)
    recorder = AttentionRecorder(network, gradients, backward)
    try:
        output = observe(network, images, recorder)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        known = _known_failure(network, images, error)
        if known is None:
            raise
        raise known from error
    logits, pooled = _logits(output)
    recorder.finish(len(images))
    mark_channels(network, images, recorder)
    blocks, pooling = token_graph(recorder, network, len(images))
    if recorder.rules is not None:
        _tell_unruled(network, logits)
    return AttentionRecord(
        logits=logits.detach(),
        blocks=blocks,
        convolution_size=recorder.convolution_size,
        convolution_extent=recorder.convolution_extent,
        pooling=pooling,
        maxima=recorder.maxima,
        pooled=pooled,
        output=output,
        logits_graph=logits if gradients else None,
        answer=recorder.answers.of(logits),
    )


def _known_failure(
    network: nn.Module, images: Tensor, error: Exception
) -> UnsupportedNetworkError | ValueError | None:
    """What a network's own error means; None where nobody knows."""
    name = type(network).__name__
    if "Inference tensors" in str(error):
        return UnsupportedNetworkError(
            f"{name} has weights that were made inside torch.inference_mode(), which have no "
            "gradients; make the network outside of it, or use a method that needs none, such as "
            "attention_rollout"
        )
    if isinstance(error, UnsupportedNetworkError) or not _MISMATCH.search(str(error)):
        return None
    given = f"{images.dtype} of shape {tuple(images.shape)} on {images.device}"
    return ValueError(f"{name} fails on images that are {given}: {error}")


# Words of torch's and timm's errors where it is the images that do not fit.
_MISMATCH = re.compile(
    r"\b(sizes?|shapes?|dim(ension)?s?|channels?|height|width|d?types?|device|unpack|backend)\b",
    re.I,
)


def _tell_unruled(network: nn.Module, logits: Tensor) -> None:
    names = unruled(logits)
    if names:
        warnings.warn(
            f"backward='libra' has no rule for {', '.join(names)} in {type(network).__name__}: the "
            "ordinary derivative is taken there, and input times gradient need not add up to the "
            "score",
            stacklevel=3,
        )


def _check_images(network: object, images: object) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a tensor (batch, channels, height, width), got {type(images).__name__}"
        )
    if images.dim() < 2 or not len(images):
        raise ValueError(f"images must hold at least one image, got shape {tuple(images.shape)}")


def field_of(output: Any, name: str) -> Tensor | None:
    """A tensor that the network returned under a name, as Hugging Face and open_clip do."""
    found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None


def _logits(output: Any) -> tuple[Tensor, bool]:
    """Logits or pooled features, (batch, values), out of whatever the network returned.

    Tokens that nobody pooled, (batch, tokens, values), are averaged; the second value is then
    False.
    """
    named = (field_of(output, name) for name in LOGITS)
    logits = next((one for one in named if one is not None), output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 3):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetworkError(
            f"the network returned {found}; wrap it so that it returns (batch, classes)"
        )
    if logits.dim() == 2:
        return logits, True
    return logits.mean(dim=1), logits is field_of(output, "logits")
