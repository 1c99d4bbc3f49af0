"""The backward pass by rules on whole networks: not a bit of the logits changes, and input times
gradient adds up to the score. Then the authors' own numbers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import left_as_it_was, redraw, small_vit
from networks import ALL, HUGGING_FACE, made, photos_for
from safetensors import safe_open
from safetensors.torch import load_file
from timm.layers import GluMlp, RmsNorm, SimpleNorm, SwiGLU, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def eva(**options) -> nn.Module:
    sizes = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return redraw(Eva(**sizes, num_classes=7, **options)).eval()


TIMM: dict[str, Callable[[], nn.Module]] = {
    "class token": small_vit,
    "average": partial(small_vit, global_pool="avg"),
    "registers, LayerScale": partial(small_vit, reg_tokens=3, init_values=1e-2),
    "attention pool": partial(small_vit, global_pool="map", class_token=False),
    "maximum": partial(small_vit, global_pool="max"),
    "parallel scaling": partial(small_vit, block_fn=ParallelScalingBlock),
    "parallel things": partial(small_vit, block_fn=ParallelThingsBlock),
    "differential, parallel": partial(small_vit, block_fn=DiffParallelScalingBlock),
    "differential": partial(small_vit, attn_layer="diff"),
    "norm after": partial(small_vit, block_fn=ResPostBlock),
    "norms of the inner layers": partial(small_vit, scale_attn_norm=True, scale_mlp_norm=True),
    "RMS norm": partial(small_vit, norm_layer=RmsNorm, qk_norm=True),
    "RMS norm, simple": partial(small_vit, norm_layer=SimpleNorm),
    "SwiGLU": partial(small_vit, mlp_layer=SwiGLU),
    "SwiGLU, packed": partial(small_vit, mlp_layer=SwiGLUPacked, act_layer="silu"),
    "GLU": partial(small_vit, mlp_layer=GluMlp, act_layer=nn.Sigmoid),
    "EVA, rotary, SwiGLU": partial(
        eva, use_rot_pos_emb=True, swiglu_mlp=True, scale_mlp=True, qkv_fused=False
    ),
    **{
        name: partial(small_vit, act_layer=name)
        for name in ("gelu_tanh", "quick_gelu", "swish", "mish", "relu", "relu6", "elu", "tanh")
    },
}
NETWORKS = {f"timm, {name}": make for name, make in TIMM.items()}
NETWORKS |= {name: partial(made, name) for name in ALL}
NETWORKS |= {f"{name}, fused": partial(made, name, "sdpa") for name in HUGGING_FACE}
FUSED = [f"{name}, fused" for name in HUGGING_FACE if name not in ("ViT", "DINOv2, registers")]
NAMES = [
    pytest.param(name, marks=pytest.mark.repeats) if name in FUSED else name for name in NETWORKS
]


def images_for(name: str) -> Tensor:
    return IMAGES if name.startswith("timm, ") else photos_for(name.removesuffix(", fused"))


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_attention_are_bit_identical(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name](), images_for(name)
    plain = record_attention(network, images)
    with left_as_it_was(network):
        libra = record_attention(network, images, backward="libra")
    assert torch.equal(plain.logits, libra.logits)
    for one, other in zip(plain.attentions, libra.attentions, strict=True):
        assert torch.equal(one, other)


# Conservation


class Varying(nn.Module):
    """A network some of whose parameters are given from outside, so that they have gradients."""

    def __init__(self, network: nn.Module, given: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self.given = network, given

    def forward(self, images: Tensor) -> object:
        return functional_call(self.network, self.given, images)


def split(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a network adds to what it computes, with gradients: tokens and positions; biases."""
    tokens, biases = {}, {}
    for name, parameter in network.named_parameters():
        last = name.rpartition(".")[2]
        if any(word in name for word in ("token", "position", "pos_embed", "class_embed")):
            tokens[name] = parameter.detach().clone().requires_grad_()
        elif last.endswith(("bias", "beta")) and "relative" not in name:
            biases[name] = parameter.detach().clone().requires_grad_()
    return tokens, biases


def contribution(score: Tensor, inputs: list[Tensor]) -> float:
    """The sum of input times gradient."""
    gradients = torch.autograd.grad(score, inputs, allow_unused=True, retain_graph=True)
    pairs = zip(inputs, gradients, strict=True)
    return sum((one * g).sum().item() for one, g in pairs if g is not None)


# Networks that compute in float32 whatever they are given.
SINGLE = ("DINOv3", "AIMv2")


@pytest.mark.parametrize("name", NAMES)
def test_without_biases_input_times_gradient_adds_up_to_the_score(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().double()
    tokens, biases = split(network)
    for parameter in (network.get_parameter(bias) for bias in biases):
        nn.init.zeros_(parameter)
    images = images_for(name).double().requires_grad_()
    record = record_attention(Varying(network, tokens), images, backward="libra")
    weights = torch.linspace(-1, 2, record.logits[0].numel()).double()
    score = (record.logits_graph * weights).sum()
    total = contribution(score, [images, *tokens.values()])
    rough = name.startswith(SINGLE)
    size = (record.logits * weights).abs().sum().item()
    assert total == pytest.approx(score.item(), rel=0, abs=size * (1e-5 if rough else 1e-9))


def test_the_plain_gradient_does_not_add_up():
    torch.manual_seed(0)
    network = small_vit().double()
    tokens, biases = split(network)
    for parameter in (network.get_parameter(bias) for bias in biases):
        nn.init.zeros_(parameter)
    images = IMAGES.double().requires_grad_()
    record = record_attention(Varying(network, tokens), images)
    score = record.logits_graph[:, 2].sum()
    total = contribution(score, [images, *tokens.values()])
    assert abs(total - score.item()) > 0.1 * abs(score.item())


class Detached(TorchFunctionMode):
    """The same rules as ordinary torch with parts detached, so that biases have gradients too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return func(args[0].detach(), args[1].detach(), *args[2:], **kwargs)
        if func is F.layer_norm:
            names = ("input", "normalized_shape", "weight", "bias", "eps")
            given = dict(zip(names, args, strict=False)) | kwargs
            x = given["input"]
            std = (x.detach().var(-1, correction=0, keepdim=True) + given["eps"]).sqrt()
            return (x - x.mean(-1, keepdim=True)) / std * given["weight"] + given["bias"]
        if func is F.gelu:
            return args[0] * (0.5 * (1 + torch.erf(args[0].detach() / 2**0.5)))
        if func is F.silu:
            return args[0] * args[0].detach().sigmoid()
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", ["class token", "registers, LayerScale", "average"])
def test_with_biases_these_make_up_the_rest(name):
    torch.manual_seed(0)
    network = TIMM[name]().double()
    tokens, biases = split(network)
    images = IMAGES.double().requires_grad_()
    record = record_attention(Varying(network, tokens), images, backward="libra")
    score = record.logits_graph[:, 2].sum()
    inputs = contribution(score, [images, *tokens.values()])
    with Detached():
        reference = functional_call(network, tokens | biases, images)[:, 2].sum()
    rest = contribution(reference, list(biases.values()))
    assert abs(rest) > 0.01 * abs(score.item())
    assert inputs + rest == pytest.approx(score.item(), rel=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(score, [images, *tokens.values()]),
        torch.autograd.grad(reference, [images, *tokens.values()]),
        strict=True,
    ):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_of_the_attention_are_those_of_its_output():
    """dP = dO v^T, as always; dO is what the rules bring, and P itself passes nothing on."""
    torch.manual_seed(0)
    network, outputs = small_vit().double(), []
    record = record_attention(network, IMAGES.double(), backward="libra")

    class Keeping(Detached):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            output = super().__torch_function__(func, types, args, kwargs)
            if func is F.scaled_dot_product_attention:
                outputs.append((output, args[2].detach()))
            return output

    with Keeping():
        logits = network(IMAGES.double())
    received = torch.autograd.grad(logits[:, 3].sum(), [output for output, _ in outputs])
    for ours, dO, (_, value) in zip(record.gradients(3), received, outputs, strict=True):
        assert_close(ours, dO @ value.mT, rtol=1e-9, atol=1e-12)


def test_the_authors_code_gives_the_same_gradients():
    """CP-LRP of rachtibat/LRP-eXplains-Transformers, which adds 1e-10 to divisors."""
    file = Path(__file__).parents[1] / "data" / "lrp.safetensors"
    with safe_open(file, "pt") as said:
        sizes = json.loads(said.metadata()["network"])
    arrays = {name: array.double() for name, array in load_file(file).items()}
    network = torchvision.models.VisionTransformer(**sizes).double()
    weights = {name.partition(".")[2]: one for name, one in arrays.items() if "weights." in name}
    network.load_state_dict(weights)
    image = arrays["image"].requires_grad_()
    record = record_attention(network, image, backward="libra")
    assert_close(record.logits, arrays["logits"], rtol=1e-12, atol=1e-12)
    for target, theirs in enumerate(arrays["gradients"]):
        score = record.logits_graph[:, target].sum()
        (ours,) = torch.autograd.grad(score, image, retain_graph=True)
        assert_close(ours, theirs, rtol=0, atol=1e-7 * theirs.abs().max().item())
