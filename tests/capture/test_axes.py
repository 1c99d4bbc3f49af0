"""Attention written out with its axes in any order is the attention that it is, or is refused."""

from collections.abc import Callable

import pytest
import torch
from helpers import left_as_it_was, redraw
from torch import Tensor, einsum, nn
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close

from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.models.load import wrap_model

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")


class Written(nn.Module):
    """Two blocks without any library; `attend` takes (batch, heads, tokens, channels) each and
    returns (batch, tokens, heads, channels)."""

    def __init__(self, attend: Attend, heads: int, channels: int) -> None:
        super().__init__()
        width = heads * channels
        self.heads, self.attend = heads, attend
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.head = nn.Linear(width, 7)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        for qkv in self.qkv:
            heads = qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            tokens = (tokens + self.attend(*heads).flatten(2)).tanh()
        return self.head(tokens.mean(dim=1))


def product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT).softmax(dim=-1) @ value).transpose(1, 2)


def from_the_right(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = (query @ key.mT).softmax(dim=-1)
    return (value.mT @ attention.transpose(-2, -1)).permute(0, 3, 1, 2)


def key_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = (key @ query.mT).softmax(dim=2)  # (batch, heads, key, query)
    return (attention.mT @ value).transpose(1, 2)


def copied(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = (key @ query.mT).softmax(dim=-2).transpose(2, 3).contiguous()
    return torch.matmul(torch.dropout(attention, 0.5, False), value).transpose(1, 2)


def values_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("bhqd,bhkd->bhqk", query, key).softmax(dim=-1)
    return einsum("bhkd,bhqk->bqhd", value, attention)


def tokens_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("bnid,bnjd->ijbn", query, key).softmax(dim=1)  # as in Transformer-XL
    return einsum("ijbn,bnjd->bind", attention, value)


def heads_last(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("...hqd,...hkd->...qkh", query, key).softmax(dim=-2)
    return einsum("...qkh,...hkd->...qhd", attention, value)


def heads_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = einsum("bhqd,bhkd->hbqk", query, key).softmax(dim=-1)
    return einsum("hbqk,bhkd->bqhd", attention, value)


# Heads, channels, batch: all different; heads = patches = head size = batch; one head.
SIZES = [(3, 5, 2), (6, 6, 6), (1, 6, 2), (2, 6, 2), (6, 2, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    "attend",
    [from_the_right, key_first, copied, values_first, tokens_first, heads_last, heads_first],
)
def test_the_order_of_the_axes_does_not_matter(attend, sizes):
    heads, channels, batch = sizes
    network, images = redraw(Written(product, heads, channels)), torch.randn(batch, 3, 16, 24)
    expected = record_attention(network, images)
    network.attend = attend
    with left_as_it_was(network):
        record = record_attention(network, images)
    assert_close(record.logits, expected.logits, rtol=1e-4, atol=1e-5)
    target = torch.arange(batch) % 7
    for block in range(2):
        ours, theirs = record.attentions[block], expected.attentions[block]
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        ours, theirs = (one.gradients(target)[block] for one in (record, expected))
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def mixed_by(mix: Callable[[Tensor, Tensor], Tensor]) -> Attend:
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (mix((query @ key.mT).softmax(dim=-1), weights) @ value).transpose(1, 2)

    return attend


@pytest.mark.parametrize(
    "mix",
    [
        lambda attention, weights: einsum("bhij,hg->bgij", attention, weights),
        lambda attention, weights: einsum("hg,bhij->bgij", weights, attention),
        lambda attention, weights: (attention.permute(0, 2, 3, 1) @ weights).permute(0, 3, 1, 2),
    ],
)
def test_heads_mixed_after_the_softmax_are_what_multiplies_the_values(mix):
    by_hand = lambda attention, weights: sum(  # noqa: E731
        attention[:, [head]] * weights[head][:, None, None] for head in range(3)
    )
    torch.manual_seed(0)
    network, images = redraw(Written(mixed_by(by_hand), 3, 5)), torch.randn(2, 3, 16, 24)
    expected = record_attention(network, images)
    network.attend = mixed_by(mix)
    record = record_attention(network, images)
    assert record.blocks[0].signed
    for ours, theirs in zip(record.attentions, expected.attentions, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def three_dimensions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = torch.bmm(query[:, 0], key[:, 0].mT).softmax(dim=-1)
    return torch.bmm(attention, value[:, 0]).unsqueeze(2)


def fused_in_three_dimensions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    parts = (one[:, 0] for one in (query, key, value))
    return nn.functional.scaled_dot_product_attention(*parts, scale=1.0).unsqueeze(2)


def non_local(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = torch.bmm(query[:, 0], key[:, 0].mT).softmax(dim=-1)
    return torch.bmm(value[:, 0].mT, attention.permute(0, 2, 1)).mT.unsqueeze(2)


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("attend", [three_dimensions, fused_in_three_dimensions, non_local])
def test_one_head_needs_no_axis(attend, batch):
    network, images = redraw(Written(product, 1, 6)), torch.randn(batch, 3, 16, 24)
    expected = record_attention(network, images)
    network.attend = attend
    record = record_attention(network, images)
    target = torch.arange(batch) % 7
    assert record.attentions[0].shape == (batch, 1, 6, 6)
    for block in range(2):
        assert_close(record.attentions[block], expected.attentions[block], rtol=1e-4, atol=1e-5)
        ours, theirs = (one.gradients(target)[block] for one in (record, expected))
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    assert wrap_model(network, image_size=(16, 24)).layout.grid_size == (2, 3)


def heads_stay_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (one.transpose(0, 1) for one in (query, key, value))
    return ((query @ key.mT).softmax(dim=-1) @ value).permute(1, 2, 0, 3)


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = (query @ key.mT).softmax(dim=-1)
    return (attention.unsqueeze(-1) * value.unsqueeze(2)).sum(dim=3).transpose(1, 2)


@pytest.mark.parametrize(
    ("attend", "message"),
    [
        (heads_stay_first, "attention whose first axis is not that of the images, of 6 tokens"),
        (by_hand, "takes a softmax over 6 x 6 scores as attention does, but no product"),
    ],
)
def test_what_cannot_be_read_is_refused_for_what_it_is(attend, message):
    network = redraw(Written(attend, 3, 5))
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=message):
        wrap_model(network, image_size=(16, 24))


def efficient(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = query.softmax(dim=-1), key.softmax(dim=-2)
    return (query @ (key.mT @ value)).transpose(1, 2)


def efficient_in_letters(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = query.softmax(dim=-1), key.softmax(dim=-2) * 0.5
    context = einsum("bhnd,bhne->bhde", key, value)
    return einsum("bhnd,bhde->bnhe", query, context)


def efficient_with_channels_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ (key.mT.contiguous().softmax(dim=-1) @ value)).transpose(1, 2)


def softmax_of_the_query(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    context = key.mT @ value
    return (query.softmax(dim=-1) @ context).transpose(1, 2)


def among_channels(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query.mT @ key).softmax(dim=-1) @ value.mT).permute(0, 3, 1, 2)


LINEAR = [
    efficient,
    efficient_in_letters,
    efficient_with_channels_first,
    softmax_of_the_query,
    among_channels,
]


@pytest.mark.parametrize("channels", [5, 6])
@pytest.mark.parametrize("attend", LINEAR)
def test_as_many_channels_as_tokens_make_no_attention(attend, channels):
    network = redraw(Written(attend, 3, channels))
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError) as caught:
        wrap_model(network, image_size=(16, 24))
    if channels == 6 and attend is not among_channels:
        assert "linear attention, a softmax of projected tokens alone" in str(caught.value)


def far(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attention = torch.cdist(query, key).square().neg().softmax(dim=-1)
    return (attention @ value).transpose(1, 2)


def far_by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    distance = (query.unsqueeze(3) - key.unsqueeze(2)).square().sum(dim=-1)
    return ((-distance).softmax(dim=-1) @ value).transpose(1, 2)


def test_scores_may_be_distances():
    network, images = redraw(Written(far, 3, 6)), torch.randn(2, 3, 16, 24)
    expected = record_attention(network, images)
    network.attend = far_by_hand
    record = record_attention(network, images)
    for ours, theirs in zip(record.attentions, expected.attentions, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def flash_attn(*heads: Tensor) -> Tensor:
    return product(*heads)


flash_attn.__module__ = "flash_attn.flash_attn_interface"


class External(Written):
    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        flash_attn  # noqa: B018  # named, and not called
        return self.head(tokens.mean(dim=1))


class Flexible(Written):
    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        for qkv in self.qkv:
            heads = qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            tokens = (tokens + flex_attention(*heads).transpose(1, 2).flatten(2)).tanh()
        return self.head(tokens.mean(dim=1))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_kernel_that_torch_traces_is_named_too():
    network = redraw(Flexible(product, 2, 16)).eval()
    with left_as_it_was(network):
        with pytest.raises(UnsupportedNetworkError, match="runs in flex_attention, out of sight"):
            record_attention(network, torch.randn(2, 3, 16, 24))


def test_a_kernel_out_of_sight_is_named_with_the_cure():
    network = External(product, 3, 5)
    with pytest.raises(UnsupportedNetworkError, match=r"runs in flash_attn.*'sdpa'"):
        record_attention(network, torch.randn(1, 3, 16, 24))
