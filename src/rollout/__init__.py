"""See what a Vision Transformer looks at: attention rollout, gradient rollout, attention flow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollout.cards import describe as describe
    from rollout.explanation import Explanation as Explanation
    from rollout.explanation import explain as explain
    from rollout.flow import attention_flow as attention_flow
    from rollout.hooks import UnsupportedNetworkError as UnsupportedNetworkError
    from rollout.hooks import record_attention as record_attention
    from rollout.model import Model as Model
    from rollout.models import load_model as load_model
    from rollout.models import wrap_model as wrap_model
    from rollout.recording import record_model as record_model
    from rollout.rollout import attention_rollout as attention_rollout
    from rollout.rollout import gradient_rollout as gradient_rollout
    from rollout.sweeps import sweep as sweep
    from rollout.vit_explain import VITAttentionGradRollout as VITAttentionGradRollout
    from rollout.vit_explain import VITAttentionRollout as VITAttentionRollout
    from rollout.widgets import explore as explore

# Loaded when first used, so that the mathematics alone needs no timm and no matplotlib.
_HOME = {
    "describe": "cards",
    "Explanation": "explanation",
    "explain": "explanation",
    "attention_flow": "flow",
    "UnsupportedNetworkError": "hooks",
    "record_attention": "hooks",
    "Model": "model",
    "load_model": "models",
    "wrap_model": "models",
    "record_model": "recording",
    "attention_rollout": "rollout",
    "gradient_rollout": "rollout",
    "sweep": "sweeps",
    "VITAttentionGradRollout": "vit_explain",
    "VITAttentionRollout": "vit_explain",
    "explore": "widgets",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rollout' has no attribute {name!r}")
    return getattr(import_module(f"rollout.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
