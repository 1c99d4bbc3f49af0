"""Each rule of the backward pass against its formula; what is said and what is left behind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.nn.functional as F
from helpers import left_as_it_was, small_vit
from safetensors.torch import load_file
from timm.layers import SwiGLU, SwiGLUPacked
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.capture.attention_mode import AttentionRecorder
from rollout.capture.forward_pass import record_attention

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


# Rule by rule


def ruled(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Value and gradients under the rules; the score weighs each number differently."""
    varying = [one.clone().requires_grad_() for one in inputs]
    with AttentionRecorder(nn.Module(), True, "libra"):
        output = function(*(one * 1 for one in varying))  # a leaf cannot be changed in place
    weights = torch.linspace(-1, 2, output.numel()).double().reshape(output.shape)
    score = (output * weights).sum()
    return output.detach(), list(torch.autograd.grad(score, varying, materialize_grads=True))


def expected(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    varying = [one.clone().requires_grad_() for one in inputs]
    output = function(*varying)
    weights = torch.linspace(-1, 2, output.numel()).double().reshape(output.shape)
    score = (output * weights).sum()
    return output.detach(), list(torch.autograd.grad(score, varying, materialize_grads=True))


def std(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    return (x.detach().var(dim, correction=0, keepdim=True) + 1e-5).sqrt()


def rms(x: Tensor) -> Tensor:
    return (x.detach().square().mean(-1, keepdim=True) + 1e-6).sqrt()


def grouped_norm(x: Tensor) -> Tensor:
    groups = x.reshape(3, 2, 2, 5)  # (batch, groups, channels, places)
    centred = groups - groups.mean((2, 3), keepdim=True)
    return (centred / std(groups, (2, 3))).reshape(3, 4, 5) * W[:4, None]


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x, 3.0))))


W = torch.linspace(-1, 2, 5).double()
ONE_INPUT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "layer norm": (
        lambda x: F.layer_norm(x, (5,), W, W),
        lambda x: (x - x.mean(-1, keepdim=True)) / std(x) * W + W,
    ),
    "layer norm of two axes": (
        lambda x: torch.layer_norm(x, (4, 5)),
        lambda x: (x - x.mean((-2, -1), keepdim=True)) / std(x, (-2, -1)),
    ),
    "layer norm written out": (
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + 1e-5).sqrt(),
        lambda x: (x - x.mean(-1, keepdim=True)) / std(x),
    ),
    "RMS norm": (lambda x: F.rms_norm(x, (5,), W, 1e-6), lambda x: x / rms(x) * W),
    "RMS norm written out": (
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
        lambda x: x / rms(x),
    ),
    "group norm": (lambda x: F.group_norm(x, 2, W[:4]), grouped_norm),
    "length": (
        lambda x: F.normalize(x, dim=-1),
        lambda x: x / x.detach().norm(dim=-1, keepdim=True),
    ),
    "length written out": (
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: x / x.detach().norm(dim=-1, keepdim=True),
    ),
    "GELU": (F.gelu, lambda x: x * (0.5 * (1 + torch.erf(x.detach() / 2**0.5)))),
    "GELU by tanh, written out": (
        gelu_tanh,
        lambda x: x * (0.5 * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3)))).detach(),
    ),
    "GELU written out": (
        lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)),
        lambda x: x * (0.5 * (1 + torch.erf(x / 2**0.5))).detach(),
    ),
    "SiLU": (F.silu, lambda x: x * x.detach().sigmoid()),
    "SiLU in place": (partial(F.silu, inplace=True), lambda x: x * x.detach().sigmoid()),
    "SiLU written out in place": (
        lambda x: x.mul_(x.sigmoid()),
        lambda x: x * x.detach().sigmoid(),
    ),
    "QuickGELU": (
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x * (1.702 * x.detach()).sigmoid(),
    ),
    "ReLU": (F.relu, lambda x: x * (x.detach() > 0)),
    "ReLU squared": (lambda x: F.relu(x) ** 2, lambda x: x * F.relu(x.detach())),
    "tanh": (torch.tanh, lambda x: x * _ratio(torch.tanh, x)),
    "ELU": (lambda x: F.elu(x, 0.7), lambda x: x * _ratio(lambda y: F.elu(y, 0.7), x)),
    "attention written out": (
        lambda x: (x @ x.mT).softmax(-1) @ x,
        lambda x: (x @ x.mT).softmax(-1).detach() @ x,
    ),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        lambda x: F.scaled_dot_product_attention(x.detach(), x.detach(), x, is_causal=True),
    ),
}


def _ratio(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach()
    return torch.where(x == 0, 1, function(x) / x)


@pytest.mark.parametrize("name", ONE_INPUT)
def test_a_rule_is_its_formula(name):
    ours, formula = ONE_INPUT[name]
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    x[0, 0, :2] = 0
    value, gradient = ruled(ours, x)
    theirs, wanted = expected(formula, x)
    assert_close(value, theirs)
    assert wanted[0].abs().max() > 0
    assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


TWO_INPUTS: dict[str, tuple[Callable[..., Tensor], tuple[float, float]]] = {
    "product": (lambda x, y: x * y, (0.5, 0.5)),
    "SwiGLU": (lambda x, y: F.relu(x) * y, (0.5, 0.5)),
    "product in place": (lambda x, y: x.mul_(y), (0.5, 0.5)),
    "matrices": (lambda x, y: x @ y.mT, (0.5, 0.5)),
    "einsum": (lambda x, y: torch.einsum("btc,bsc->bts", [x, y]), (0.5, 0.5)),
    "with a constant": (lambda x, y: x * 3 + y * 0, (1, 1)),
    "gate": (lambda x, y: x * (1 + y.tanh()), (1, 0)),
    "gate first": (lambda x, y: torch.mul(y.sigmoid(), other=x), (1, 0)),
    "quotient": (lambda x, y: x / (1 + y**2), (1, 0)),
    "quotient of a constant": (
        lambda x, y: x * torch.div(torch.ones_like(y), 1 + y**2),
        (1, 0),
    ),
    "product of a quotient": (lambda x, y: torch.div(x, 3 + W[0]) * y, (0.5, 0.5)),
    "reciprocal": (lambda x, y: x * (1 / (1 + y**2)), (1, 0)),
}


@pytest.mark.parametrize("name", TWO_INPUTS)
def test_factors_share_the_gradient_and_gates_have_none(name):
    function, shares = TWO_INPUTS[name]
    x, y = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double().unbind()
    value, gradients = ruled(function, x, y)
    plainly, plain = expected(lambda x, y: function(x * 1, y), x, y)
    assert_close(value, plainly)
    for share, ours, theirs in zip(shares, gradients, plain, strict=True):
        assert_close(ours, share * theirs)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: nn.LayerNorm(8),
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "SwiGLU": lambda: SwiGLU(8, 12),
    "SwiGLUPacked": lambda: SwiGLUPacked(8, 24),
}


@pytest.mark.parametrize("name", [*LAYERS, "normalize"])
def test_the_authors_layers_give_the_same_gradients(name):
    """NightMachinery/pytorch-image-models-libragrad-v1, which has sqrt(2) in float32."""
    arrays = load_file(Path(__file__).parents[1] / "data" / "libragrad.safetensors")
    layer = partial(F.normalize, dim=-1)
    if name in LAYERS:
        layer = LAYERS[name]().double().requires_grad_(False)
        layer.load_state_dict({key: arrays[f"{name}.{key}"] for key in layer.state_dict()})
    x = arrays["x"].requires_grad_()
    with AttentionRecorder(nn.Module(), True, "libra"):
        score = (layer(x) * arrays["weights"]).sum()
    (ours,) = torch.autograd.grad(score, x)
    assert_close(ours, arrays[f"gradient.{name}"], rtol=1e-6, atol=1e-7)


# What is left behind, and what is said


def test_nothing_is_left_behind_by_an_exception():
    class Breaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = small_vit()

        def forward(self, images: Tensor) -> Tensor:
            self.vit(images)
            raise LookupError("after all blocks")

    network = Breaking()
    with left_as_it_was(network), pytest.raises(LookupError):
        record_attention(network, IMAGES, backward="libra")
    x = torch.randn(4, requires_grad=True)
    F.gelu(x).sum().backward()
    assert_close(x.grad, torch.func.grad(lambda y: F.gelu(y).sum())(x.detach()))


def test_threads_with_different_rules_do_not_meet():
    network = small_vit()
    single = {
        rules: list(record_attention(network, IMAGES, backward=rules).gradients(1))
        for rules in ("plain", "libra")
    }
    found: list[tuple[str, list[Tensor]]] = []

    def run(rules: str) -> None:
        for _ in range(3):
            record = record_attention(network, IMAGES, backward=rules)
            found.append((rules, list(record.gradients(1))))

    threads = [Thread(target=run, args=(rules,)) for rules in ("plain", "libra") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for rules, gradients in found:
        assert_close(gradients, single[rules], rtol=1e-4, atol=1e-6)


def test_a_function_without_a_rule_is_named():
    network = nn.Sequential(small_vit(), nn.Softmax(dim=-1))
    with pytest.warns(UserWarning, match="no rule for Softmax in Sequential"):
        record = record_attention(network, IMAGES, backward="libra")
    assert all(gradient.abs().max() > 0 for gradient in record.gradients(1))
    network = small_vit(act_layer="hard_mish")  # timm's own autograd function
    with pytest.warns(UserWarning, match="no rule for HardMishAutoFn in VisionTransformer"):
        record_attention(network, IMAGES, backward="libra")
    record_attention(network, IMAGES, gradients=False, backward="libra")  # nothing to be said


def test_rules_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="backward must be one of plain, libra; got 'lrp'"):
        record_attention(small_vit(), IMAGES, backward="lrp")


def test_half_precision_goes_through_the_rules():
    network, images = small_vit().bfloat16(), IMAGES.bfloat16()
    plain = record_attention(network, images)
    libra = record_attention(network, images, backward="libra")
    assert torch.equal(plain.logits, libra.logits)
    exact = record_attention(network.float(), images.float(), backward="libra").gradients(1)
    for ours, theirs in zip(libra.gradients(1), exact, strict=True):
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.95
