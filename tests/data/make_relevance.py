"""Write relevance.safetensors: what the authors' own code computes on small networks.

    python tests/data/make_relevance.py MM EXPLAINABILITY AGCAM LEGRAD

Each is a checkout: of github.com/hila-chefer/Transformer-MM-Explainability (generic relevance) and
Transformer-Explainability (Grad-CAM on attention), of LeemSaebom/Attention-Guided-CAM-Visual-
Explanations-of-Vision-Transformer-Guided-by-Self-Attention, and of WalBouss/LeGrad, whose wrapper
takes a network of open_clip. Their code runs unchanged, in float64, on the CPU; only arrays are
kept. Needs einops, and cv2 is not needed although LeGrad imports it.
"""

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from open_clip.transformer import VisionTransformer as Tower
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch import nn

NETWORK = {"img_size": 28, "patch_size": 2, "embed_dim": 24, "depth": 3, "num_heads": 3}
NETWORK |= {"mlp_ratio": 2, "num_classes": 5}
TOWER = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "heads": 3}
TOWER |= {"mlp_ratio": 2.0, "output_dim": 16}
CATEGORIES = (1, 3)


def random_weights(network):
    """Random in every parameter, and uneven enough that heads, blocks and tokens all differ."""
    for name, parameter in network.named_parameters():
        is_scale = ("norm" in name or "ln_" in name) and name.endswith("weight")
        is_bias = parameter.dim() < 2 or "token" in name or "embed" in name
        spread = 0.3 if is_bias else 1.5 / parameter[0].numel() ** 0.5
        nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=spread)
    return network.half().double().eval()  # so that the stored float16 says it all


class Steps(nn.Module):
    """timm's attention with a module on each side of the softmax, and what authors ask of it."""

    def __init__(self, attention):
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.before_softmax, self.after_softmax = nn.Identity(), nn.Identity()

    def forward(self, x, **_):
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = self.before_softmax((query @ key.transpose(-2, -1)) * self.scale)
        self.probabilities = self.after_softmax(scores.softmax(dim=-1))
        self.probabilities.retain_grad()
        return self.proj((self.probabilities @ value).transpose(1, 2).reshape(x.shape))

    def get_attention_map(self):
        return self.probabilities

    def get_attn_gradients(self):
        return self.probabilities.grad


class InSteps(nn.Module):
    """The network as the authors' functions call it."""

    def __init__(self, state):
        super().__init__()
        self.network = VisionTransformer(**NETWORK).double().eval()
        self.network.load_state_dict(state)
        for block in self.network.blocks:
            block.attn = Steps(block.attn)
        self.blocks = self.network.blocks

    def forward(self, images, register_hook=False):
        return self.network(images)


def import_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generic_relevance(checkout, state, image, category):
    """The first cell of their notebook that defines `generate_relevance`."""
    notebook = json.loads((checkout / "Transformer_MM_explainability_ViT.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    names = {"torch": torch, "np": np}
    exec(next(source for source in sources if "def generate_relevance" in source), names)
    return names["generate_relevance"](InSteps(state), image, index=category).detach()


def attention_gradcam(checkout, state, image, category):
    module = import_file(checkout / "baselines" / "ViT" / "ViT_explanation_generator.py")
    return module.Baselines(InSteps(state)).generate_cam_attn(image, index=category).detach()


def agcam(checkout, state, image, category):
    module = import_file(checkout / "Methods" / "AGCAM" / "AGCAM.py")
    _, mask = module.AGCAM(InSteps(state)).generate(image, cls_idx=category)
    return mask.detach()[0, 0]


def legrad(checkout, tower, image, text):
    """All blocks; enlarged to pixels and scaled to [0, 1] as published."""
    sys.path.insert(0, str(checkout))
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))
    wrapper = importlib.import_module("legrad.wrapper")
    # They were written when open_clip's blocks took (tokens, batch, width).
    for block in tower.transformer.resblocks:
        block.attn.batch_first = False
    tower.patch_dropout = nn.Identity()
    model = nn.Module()
    model.visual = tower
    model.encode_image = tower
    wrapped = wrapper.LeWrapper(model, layer_index=0)
    return wrapped.compute_legrad(text, image)[0].detach()  # (1, height, width)


def main(mm, explainability, agcam_checkout, legrad_checkout):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    state = random_weights(VisionTransformer(**NETWORK)).state_dict()
    image = torch.randn(1, 3, 28, 28).half().double()
    arrays = {f"network/{name}": value.half() for name, value in state.items()}
    arrays["image"] = image.half()
    for category in CATEGORIES:
        for function, checkout in (
            (generic_relevance, mm),
            (attention_gradcam, explainability),
            (agcam, agcam_checkout),
        ):
            found = function(checkout, state, image.clone(), category)
            arrays[f"{function.__name__}/{category}"] = found.reshape(14, 14)
    tower = random_weights(Tower(**TOWER))
    picture = torch.randn(1, 3, 32, 32).half().double()
    text = torch.randn(1, 16).half().double()
    arrays |= {f"tower/{name}": value.half() for name, value in tower.state_dict().items()}
    arrays |= {"picture": picture.half(), "text": text.half()}
    arrays["legrad"] = legrad(legrad_checkout, tower, picture, text)
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    versions["open_clip"] = open_clip.__version__
    metadata = {"network": json.dumps(NETWORK), "tower": json.dumps(TOWER), **versions}
    path = Path(__file__).with_name("relevance.safetensors")
    save_file({name: value.contiguous() for name, value in arrays.items()}, path, metadata)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
