"""Recording: the same numbers as the network's own unfused path, and a network left untouched."""

import pytest
import timm
import torch
from helpers import bare_answer, left_as_it_was, small_vit
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def unfused_reference(network: nn.Module, images: torch.Tensor, target: list[int]):
    """Attention and its gradients from plain hooks on `attn_drop`, with fused kernels off."""
    kept: list[torch.Tensor] = []
    handles = []
    for block in network.blocks:
        block.attn.fused_attn = False
        handles.append(
            block.attn.attn_drop.register_forward_hook(lambda module, args, out: kept.append(out))
        )
    logits = network(images)
    score = sum(logits[image, index] for image, index in enumerate(target))
    gradients = torch.autograd.grad(score, kept)
    for block, handle in zip(network.blocks, handles, strict=True):
        block.attn.fused_attn = True
        handle.remove()
    return [attention.detach() for attention in kept], gradients


@pytest.mark.parametrize(
    "options", [{}, {"qk_norm": True}, {"reg_tokens": 2}, {"init_values": 0.5}]
)
def test_attention_and_gradients_equal_the_unfused_path(options):
    network = small_vit(**options)
    record = record_attention(network, IMAGES)
    attentions, gradients = unfused_reference(network, IMAGES, [3, 5])
    assert len(record.attentions) == len(attentions) == 3
    for ours, theirs in zip(record.attentions, attentions, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(record.gradients([3, 5]), gradients, strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_gradients_equal_finite_differences():
    """Move one attention entry of the middle block by hand and see what the logit does."""
    network = small_vit().double()
    images = IMAGES.double()
    gradient = record_attention(network, images).gradients(4)[1]
    attention = network.blocks[1].attn
    attention.fused_attn = False
    place, step, scores = (1, 2, 0, 7), 1e-5, []
    for sign in (1, -1):

        def move(module, args, out, sign=sign):
            moved = out.clone()
            moved[place] += sign * step
            return moved

        with attention.attn_drop.register_forward_hook(move), torch.no_grad():
            scores.append(network(images)[:, 4].sum())
    assert_close(gradient[place], (scores[0] - scores[1]) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("gradients", [True, False])
def test_logits_are_bit_identical_to_the_bare_network(gradients):
    network = small_vit()
    found = record_attention(network, IMAGES, gradients=gradients).logits
    assert torch.equal(found, bare_answer(network, IMAGES))


def test_rows_of_the_attention_sum_to_one():
    for attention in record_attention(small_vit(), IMAGES).attentions:
        assert attention.shape == (2, 3, 25, 25)
        assert_close(attention.sum(dim=-1), torch.ones(2, 3, 25))


def test_a_batch_equals_its_images_one_by_one():
    network = small_vit()
    together = record_attention(network, IMAGES)
    alone = [record_attention(network, IMAGES[i : i + 1]) for i in range(2)]
    for block in range(3):
        single = torch.cat([record.attentions[block] for record in alone])
        assert_close(together.attentions[block], single)
        single = torch.cat([record.gradients(2)[block] for record in alone])
        assert_close(together.gradients(2)[block], single, rtol=1e-3, atol=1e-5)


def test_the_block_at_which_a_target_is_asked_again_gives_the_same():
    record = record_attention(small_vit(), IMAGES)
    first, _, again = record.gradients(1)[0], record.gradients(2), record.gradients(1)[0]
    assert_close(first, again, rtol=0, atol=0)


def prepared_network() -> nn.Module:
    """A state that a careless recorder would destroy: mixed modes, frozen and trained weights."""
    network = small_vit()
    network.set_grad_checkpointing()
    network.train()
    network.blocks[1].eval()
    network.patch_embed.requires_grad_(False)
    return network


def test_the_network_is_left_as_it_was():
    network = prepared_network()
    with left_as_it_was(network):
        record = record_attention(network, IMAGES)
        record.gradients(0)
    assert len(record.blocks) == 3


def test_the_network_is_left_as_it_was_when_it_raises():
    network = prepared_network()
    network.blocks[2].mlp = nn.Linear(5, 5)
    with (
        left_as_it_was(network),
        pytest.raises(ValueError, match="fails on images .* mat1 and mat2"),
    ):
        record_attention(network, IMAGES)


def test_recording_works_where_the_caller_switched_gradients_off():
    network = small_vit()
    expected = record_attention(network, IMAGES).gradients(1)[0]
    with torch.no_grad():
        assert_close(record_attention(network, IMAGES).gradients(1)[0], expected)
    with torch.inference_mode():
        images = IMAGES * 1
        assert_close(record_attention(network, images).gradients(1)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_probabilities(dtype):
    record = record_attention(small_vit().to(dtype), IMAGES.to(dtype))
    for attention in record.attentions:
        assert attention.dtype == torch.float32
        assert_close(attention.sum(dim=-1), torch.ones(2, 3, 25), rtol=0, atol=1e-6)
    assert record.gradients(1)[0].dtype == torch.float32


def test_asking_for_gradients_that_were_not_recorded_says_how():
    with pytest.raises(ValueError, match="gradients=True"):
        record_attention(small_vit(), IMAGES, gradients=False).gradients(1)


@pytest.mark.parametrize("target", [7, -1, [0, 9]])
def test_a_target_out_of_range_is_named(target):
    with pytest.raises(ValueError, match=r"target must be in \[0, 6\], got"):
        record_attention(small_vit(), IMAGES).gradients(target)


class SelfAttention(nn.Module):
    """One attention layer on the pixels of a small image, in a way of the caller's choice."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.attend, self.head = attend, nn.Linear(6, 4)

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2)  # (batch, 15, 6)
        return self.head(self.attend(tokens).mean(dim=1))


def grouped_queries(tokens):
    heads = tokens.unflatten(2, (2, 3)).transpose(1, 2)
    out = scaled_dot_product_attention(
        heads, heads[:, :1], heads[:, :1], is_causal=True, scale=0.3, enable_gqa=True
    )
    return out.transpose(1, 2).flatten(2)


def written_out(tokens):
    heads = tokens.unflatten(2, (2, 3)).transpose(1, 2)
    return ((heads @ heads.transpose(-2, -1)).softmax(-1) @ heads).transpose(1, 2).flatten(2)


def multi_head(need_weights):
    module = nn.MultiheadAttention(6, 2, batch_first=True)
    return lambda tokens: module(tokens, tokens, tokens, need_weights=need_weights)[0]


@pytest.mark.parametrize(
    "attend", [grouped_queries, written_out, multi_head(True), multi_head(False)]
)
def test_any_way_to_write_attention_is_recorded(attend):
    record = record_attention(SelfAttention(attend), torch.randn(2, 6, 3, 5))
    attention, gradient = record.attentions[0], record.gradients(3)[0]
    assert attention.shape == gradient.shape == (2, 2, 15, 15)
    assert_close(attention.sum(dim=-1), torch.ones(2, 2, 15))
    assert gradient.abs().max() > 0
    if attend is grouped_queries:
        assert (attention.triu(1) == 0).all()


def test_torchvision_is_recorded():
    from torchvision.models import VisionTransformer

    network = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32).eval()
    nn.init.normal_(network.heads.head.weight)
    record = record_attention(network, torch.randn(2, 3, 32, 32))
    assert [call.shape for call in record.blocks] == [(2, 2, 17, 17)] * 2
    assert record.convolution_size == (4, 4)
    assert record.gradients(5)[0].abs().max() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "ResNet cannot be rolled out: it ran without any attention"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer cannot be rolled out: windows of 49"),
    ],
)
def test_other_architectures_are_refused_with_the_reason(name, message):
    network = timm.create_model(name).eval()
    with pytest.raises(UnsupportedNetworkError, match=message):
        record_attention(network, torch.randn(2, 3, 224, 224), gradients=False)


def test_what_runs_out_of_sight_is_refused_with_the_cure():
    scripted = torch.jit.ScriptModule()
    with pytest.raises(UnsupportedNetworkError, match="TorchScript"):
        record_attention(scripted, IMAGES)


WRAPPERS = [
    torch.compile,
    nn.DataParallel,
    AveragedModel,
    lambda m: AveragedModel(torch.compile(m)),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_network_is_recorded_as_the_module_inside(wrap):
    network = small_vit()
    wrapped = wrap(network)
    assert_close(
        record_attention(wrapped, IMAGES).attentions[0],
        record_attention(network, IMAGES).attentions[0],
    )


def test_attention_under_no_grad_inside_the_network_is_refused():
    network = SelfAttention(torch.no_grad()(written_out))
    with pytest.raises(UnsupportedNetworkError, match="no_grad inside the network"):
        record_attention(network, torch.randn(2, 6, 3, 5))
