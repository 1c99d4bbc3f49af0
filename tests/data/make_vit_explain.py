"""Write vit_explain.safetensors: what the published vit-explain computes on a small network.

    python tests/data/make_vit_explain.py CHECKOUT

CHECKOUT is a clone of github.com/jacobgil/vit-explain. Its code runs unchanged, in float64 so that
the last bits of one machine decide nothing; only arrays are kept.
"""

import importlib
import itertools
import json
import sys
import types
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models import VisionTransformer

NETWORK = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 4,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 5,
}
RATIOS = (0.0, 0.5, 0.9, 0.99)
FUSIONS = ("mean", "min", "max")
CATEGORIES = (1, 3)


def random_network():
    """Random in every parameter, and uneven enough that heads, blocks and tokens all differ."""
    network = VisionTransformer(**NETWORK).eval()
    for name, parameter in network.named_parameters():
        is_scale = "norm" in name and name.endswith("weight")
        spread = (
            0.3 if parameter.dim() < 2 or "token" in name else 1.5 / parameter[0].numel() ** 0.5
        )
        torch.nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=spread)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return network.half().double()  # so that the stored float16 says it all


def import_published(checkout):
    sys.path.insert(0, str(checkout))
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))  # imported there, but not needed
    names = "vit_rollout", "vit_grad_rollout"
    vanilla, gradient = (importlib.import_module(name) for name in names)
    return vanilla.VITAttentionRollout, gradient.VITAttentionGradRollout


def published_masks(checkout, state, image):
    """Each from a fresh network and a fresh instance, as instances keep state between calls."""
    vanilla, gradient = import_published(checkout)

    def fresh():
        network = random_network()
        network.load_state_dict(state)
        return network

    masks = {}
    for fusion, ratio in itertools.product(FUSIONS, RATIOS):
        rollout = vanilla(fresh(), head_fusion=fusion, discard_ratio=ratio)
        masks[f"vanilla/{fusion}/{ratio}"] = torch.from_numpy(rollout(image))
    for category, ratio in itertools.product(CATEGORIES, RATIOS):
        rollout = gradient(fresh(), discard_ratio=ratio)
        masks[f"gradient/{category}/{ratio}"] = torch.from_numpy(rollout(image, category))
    return masks


def main(checkout):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    state = random_network().state_dict()
    image = torch.randn(1, 3, 64, 64).half().double()
    arrays = {f"network/{name}": value.half() for name, value in state.items()}
    arrays |= {"image": image.half(), **published_masks(checkout, state, image)}
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    metadata = {"network": json.dumps(NETWORK), **versions}
    save_file(arrays, Path(__file__).with_name("vit_explain.safetensors"), metadata)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
