"""See what a Vision Transformer looks at: attention rollout, gradient rollout, attention flow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollout.capture.forward_pass import record_attention as record_attention
    from rollout.collection.collect import collect as collect
    from rollout.comparison.compare import compare as compare
    from rollout.errors import UnsupportedNetworkError as UnsupportedNetworkError
    from rollout.explanations.explaining import explain as explain
    from rollout.explanations.explanation import Explanation as Explanation
    from rollout.explanations.recording import record_model as record_model
    from rollout.explanations.sweep import sweep as sweep
    from rollout.explorer.explore import explore as explore
    from rollout.maths.flow import attention_flow as attention_flow
    from rollout.maths.rollout import attention_rollout as attention_rollout
    from rollout.maths.rollout import gradient_rollout as gradient_rollout
    from rollout.models.audit import Audit as Audit
    from rollout.models.audit import audit as audit
    from rollout.models.card import describe as describe
    from rollout.models.load import load_model as load_model
    from rollout.models.load import wrap_model as wrap_model
    from rollout.models.model import Model as Model
    from rollout.settings import METHODS as METHODS
    from rollout.vit_explain import VITAttentionGradRollout as VITAttentionGradRollout
    from rollout.vit_explain import VITAttentionRollout as VITAttentionRollout

# Loaded when first used, so that the mathematics alone needs no timm and no matplotlib.
_HOME = {
    "record_attention": "capture.forward_pass",
    "collect": "collection.collect",
    "compare": "comparison.compare",
    "UnsupportedNetworkError": "errors",
    "Explanation": "explanations.explanation",
    "explain": "explanations.explaining",
    "record_model": "explanations.recording",
    "sweep": "explanations.sweep",
    "explore": "explorer.explore",
    "attention_flow": "maths.flow",
    "attention_rollout": "maths.rollout",
    "gradient_rollout": "maths.rollout",
    "Audit": "models.audit",
    "audit": "models.audit",
    "describe": "models.card",
    "load_model": "models.load",
    "wrap_model": "models.load",
    "Model": "models.model",
    "METHODS": "settings",
    "VITAttentionGradRollout": "vit_explain",
    "VITAttentionRollout": "vit_explain",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rollout' has no attribute {name!r}")
    return getattr(import_module(f"rollout.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
