"""Write libragrad.safetensors: gradients by the authors' layers of LibraGrad, one layer at a time.

    python tests/data/make_libragrad.py CHECKOUT

CHECKOUT is a clone of github.com/NightMachinery/pytorch-image-models-libragrad-v1. Its layers run
unchanged, in float64; what it imports beside them and never calls here is stood in for. Only arrays
are kept.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file
from torch import nn

STOOD_IN = {"pynight", "kornia", "blend_modes", "skimage", "IPython", "einops", "pytz"}
# Gradient modes of the paper's method.
MODES = {
    "gelu_gradient_mode": "LineX_ZO",
    "layer_norm_gradient_mode": "LineX_1",
    "mlp_elementwise_mul_gradient_mode": "DU",
    "normalize_to_unit_vector_gradient_mode": "LX1",
    "print_diag_enabled_groups": (),
}


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in STOOD_IN:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return MagicMock(name=spec.name, __path__=[], __name__=spec.name, __spec__=spec)

    def exec_module(self, module):
        pass


class Dynamic(dict):
    """Their object of settings: what was not set is None."""

    __getattr__ = dict.get
    __setattr__ = dict.__setitem__


def published(checkout):
    sys.meta_path.insert(0, StandIns())
    torch_tools = importlib.import_module("pynight.common_torch")
    torch_tools.decomposed_inputs_p = lambda inputs: not isinstance(inputs, torch.Tensor)
    # As LibraGrad defines it: the value of one, the gradient of the other.
    torch_tools.swap_backward = lambda value, other: value.detach() + (other - other.detach())
    dynamic = importlib.import_module("pynight.common_dynamic")
    dynamic.DynamicObject = lambda *_, **__: Dynamic()
    dynamic.dynamic_get = lambda _, name, default=None: default
    path = Path(checkout, "timm", "night", "decomposition.py")
    module = sys.modules["decomposition"] = types.ModuleType("decomposition")
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    module.dynamic_obj.update(MODES)
    return module


def main(checkout):
    theirs = published(checkout)
    torch.manual_seed(0)
    layers = {
        "LayerNorm": theirs.LayerNormDecomposed(8, eps=1e-5),
        "GELU": theirs.GELUDecomposed(),
        "SiLU": theirs.FairSiLU(),
        "SwiGLU": theirs.FairSwiGLU(8, 12, act_layer=theirs.FairSiLU),
        "SwiGLUPacked": theirs.FairSwiGLUPacked(8, 24),
        "normalize": theirs.normalize_to_unit_vector,
    }
    x = torch.randn(3, 5, 8).double()
    weights = torch.randn(3, 5, 8).double()  # of each number in the score
    arrays = {"x": x.clone(), "weights": weights}
    for name, layer in layers.items():
        if isinstance(layer, nn.Module):
            for parameter in layer.double().parameters():
                nn.init.normal_(parameter, std=0.5)
            arrays |= {f"{name}.{key}": one for key, one in layer.state_dict().items()}
        score = (layer(x.requires_grad_()) * weights).sum()
        (arrays[f"gradient.{name}"],) = torch.autograd.grad(score, x)
    save_file(arrays, Path(__file__).with_name("libragrad.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
