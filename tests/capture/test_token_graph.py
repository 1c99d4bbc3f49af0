"""Which calls are blocks: parallel, differential and mixed heads; and every kind of refusal."""

from collections.abc import Sequence

import pytest
import timm
import torch
from helpers import left_as_it_was, redraw, run_unfused, small_vit
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from rollout import attention_rollout
from rollout.capture.forward_pass import record_attention
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.recording import record_model
from rollout.models.load import wrap_model

pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def outputs_of(network: nn.Module, ending: str, *, images: Tensor = IMAGES) -> list[Tensor]:
    """What the modules of that name returned with fused kernels off; the logits last."""
    modules = [module for name, module in network.named_modules() if name.endswith(ending)]
    kept, logits = run_unfused(network, modules, images)
    return [*kept, logits]


def pairs(items: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(items[::2], items[1::2], strict=True))


def assert_gradients(record, attentions: list[Tensor], logits: Tensor) -> None:
    """Those of the record are autograd's, for another target in each image."""
    expected = torch.autograd.grad(logits[0, 1] + logits[1, 2], attentions)
    for ours, theirs in zip(record.gradients([1, 2]), expected, strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_parallel_attention_is_one_block_with_all_heads():
    network = small_vit(block_fn=timm.models.vision_transformer.ParallelThingsBlock)
    record = record_attention(network, IMAGES)
    *attentions, logits = outputs_of(network, ".attn_drop")
    assert len(record.blocks) == 3 and len(attentions) == 6
    assert record.attentions[0].shape == (2, 6, 25, 25)
    for block, pair in zip(record.attentions, pairs(attentions), strict=True):
        assert_close(block, torch.cat(pair, dim=1).detach(), rtol=1e-4, atol=1e-6)
    assert_close(
        record.attentions.one_head(4)[1], attentions[3][:, 1:2].detach(), atol=1e-6, rtol=1e-4
    )
    expected = torch.autograd.grad(logits[0, 1] + logits[1, 2], attentions)
    gradients = record.gradients([1, 2])
    for block, pair in zip(gradients, pairs(expected), strict=True):
        scale = max(one.abs().max().item() for one in pair)
        assert_close(block, torch.cat(pair, dim=1), rtol=1e-3, atol=1e-4 * scale)


def test_differential_attention_is_the_difference_of_two():
    network = small_vit(attn_layer="diff", embed_dim=48)
    for block in network.blocks:
        block.attn.lambda_q1.data.zero_()  # exp(0) - exp(q2 k2) + lambda_init
    record = record_attention(network, IMAGES)
    *both, logits = outputs_of(network, ".attn_drop")  # (batch, heads * 2, query, key) each
    expected = torch.autograd.grad(logits[0, 1] + logits[1, 2], both)
    parts = zip(network.blocks, record.attentions, record.gradients([1, 2]), strict=True)
    for (block, ours, gradient), softmaxes, received in zip(parts, both, expected, strict=True):
        first, second = softmaxes.detach().unflatten(1, (3, 2)).unbind(2)
        assert_close(ours, first - _weight(block.attn) * second, rtol=1e-4, atol=1e-6)
        theirs = received.unflatten(1, (3, 2))[:, :, 0]
        assert_close(gradient, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def _weight(attention: nn.Module) -> float:
    """Ye et al., eq. 2."""
    first, second = (
        (getattr(attention, f"lambda_q{i}") * getattr(attention, f"lambda_k{i}")).sum().exp()
        for i in (1, 2)
    )
    return (first - second + attention.lambda_init).item()


def test_differential_attention_written_out_is_the_same():
    network = small_vit(attn_layer="diff", embed_dim=48)
    fused = record_attention(network, IMAGES)
    for block in network.blocks:
        block.attn.fused_attn = False
    written = record_attention(network, IMAGES)
    assert [block.kind for block in fused.blocks] == ["differential"] * 3
    assert [block.kind for block in written.blocks] == ["written out"] * 3
    for one, other in zip(fused.attentions, written.attentions, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(fused.gradients(3), written.gradients(3), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_talking_heads_are_recorded_as_they_mix():
    cait = timm.models.Cait
    network = redraw(
        cait(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5)
    )
    images = IMAGES[..., :32]
    record = record_attention(network, images)
    *attentions, logits = outputs_of(network, ".attn_drop", images=images)
    assert len(record.blocks) == 2 and len(record.pooling) == 2
    for ours, theirs in zip(record.attentions, attentions[:2], strict=True):
        assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(record.attentions[0].sum(-1), torch.ones(2, 3, 16), atol=0.05)
    assert_gradients(record, attentions[:2], logits)


def test_signed_attention_is_not_rolled_out_unseen():
    record = record_attention(small_vit(attn_layer="diff", embed_dim=48), IMAGES)
    with pytest.raises(ValueError, match="non-negative to be rolled out.*`distributions`"):
        attention_rollout(record.attentions, head_fusion="min")
    rows = attention_rollout(record.distributions)
    assert_close(rows.sum(dim=-1), torch.ones(2, 25))


def test_signed_attention_becomes_a_distribution_and_other_attention_stays():
    signed = record_attention(small_vit(attn_layer="diff", embed_dim=48), IMAGES)
    for raw, rows in zip(signed.attentions, signed.distributions, strict=True):
        assert (rows >= 0).all() and ((rows > 0) == (raw > 0)).all()
        assert_close(rows.sum(dim=-1), torch.ones(2, 3, 25))
    plain = record_attention(small_vit(), IMAGES)
    assert torch.equal(plain.distributions[1], plain.attentions[1])


class Mixer(nn.Module):
    """Self-attention of one head with something done to it."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.qkv = what, nn.Linear(12, 36)
        self.convolution = nn.Conv2d(12, 12, 3, padding=1, groups=12)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unsqueeze(1).chunk(3, dim=-1)
        if self.what == "unseen":  # a product without a product
            attention = (query @ key.transpose(-2, -1)).softmax(dim=-1)
            return tokens + (attention.unsqueeze(-1) * value.unsqueeze(2)).sum(dim=3)[:, 0]
        if self.what == "windows":
            query, key, value = (one.reshape(-1, 1, 8, 12) for one in (query, key, value))
        if self.what == "across":
            key, value = key[:, :, ::4], value[:, :, ::4]
        if self.what == "channels":
            scores = (query.mT @ key).softmax(dim=-1)
            return tokens + (scores @ value.mT).mT[:, 0]
        if self.what == "turned":  # (heads, batch, tokens, channels)
            heads = (
                one[:, 0].unflatten(2, (3, 4)).permute(2, 0, 1, 3) for one in (query, key, value)
            )
            mixed = scaled_dot_product_attention(*heads)
            return tokens + mixed.permute(1, 2, 0, 3).flatten(2)
        if self.what == "flat":
            heads = (one[:, 0].unflatten(2, (3, 4)).transpose(1, 2) for one in (query, key, value))
            query, key, value = (one.flatten(0, 1) for one in heads)
            mixed = (query @ key.mT).softmax(dim=-1) @ value
            return tokens + mixed.unflatten(0, (-1, 3)).transpose(1, 2).flatten(2)
        mixed = scaled_dot_product_attention(query, key, value).reshape(tokens.shape)
        if self.what == "convolution":
            grid = tokens.mT.unflatten(2, (4, 6))
            mixed = mixed + self.convolution(grid).flatten(2).mT
        if self.what == "shrinks":
            return mixed[:, ::2]
        return tokens + mixed


class Network(nn.Module):
    def __init__(self, *mixers: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.blocks = nn.ModuleList(Mixer(mixer) for mixer in mixers)
        self.head = nn.Linear(12, 7)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(dim=1))


@pytest.mark.parametrize(
    ("mixers", "message"),
    [
        (["plain", "windows", "plain"], "windows of 8 tokens in 1 block"),
        (["plain", "across"], "attention of 24 queries to 6 keys"),
        (["channels", "channels"], "cross-covariance attention among channels in 2 blocks"),
        (["plain", "convolution", "plain"], "convolutions mix the tokens between the blocks"),
        (
            ["flat", "flat"],
            "heads or windows share an axis with the images, of 24 tokens",
        ),
        (["plain", "shrinks", "plain"], "number of tokens changes on the way: 24, 12"),
        (["plain", "unseen", "plain"], "1 of the 3 blocks in 'blocks' show no attention"),
        (["plain", "plain", "unseen"], "1 of the 3 blocks in 'blocks' show no attention"),
        (["unseen", "unseen"], "'blocks.0' takes a softmax over 24 x 24 scores as attention does"),
    ],
)
def test_what_is_no_graph_of_tokens_is_refused_in_words(mixers, message):
    network = Network(*mixers)
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match=message) as caught:
        record_attention(network, IMAGES)
    assert str(caught.value).startswith("Network cannot be rolled out: ")
    assert "Grad-CAM" in str(caught.value) and message in caught.value.finding


def test_what_is_refused_is_named_once():
    with pytest.raises(UnsupportedNetworkError) as caught:
        record_attention(Network("plain", "turned"), IMAGES)
    turned = "attention whose first axis is not that of the images, of 24 tokens in 1 block"
    assert caught.value.finding == turned
    with pytest.raises(UnsupportedNetworkError) as caught:
        record_attention(Network("windows", "turned"), IMAGES)
    assert caught.value.finding == f"{turned}; windows of 8 tokens in 1 block"


def test_a_network_may_take_rows_of_numbers():
    network = nn.Sequential(nn.Unflatten(1, (24, 12)), Mixer("plain"), Mixer("plain"))
    assert len(record_attention(network, torch.randn(2, 288)).blocks) == 2
    with pytest.raises(ValueError, match="images must hold at least one image"):
        record_attention(network, torch.randn(288))


def test_windows_of_one_image_are_windows():
    """As many heads as images, one each, and windows first: no axes in another order."""
    with pytest.raises(UnsupportedNetworkError, match="windows of 8 tokens in 1 block"):
        record_attention(Network("plain", "windows"), IMAGES[:1])


def test_a_silent_block_is_missed_in_a_sequence_without_a_name():
    network = nn.Sequential(*(Mixer(what) for what in ("plain", "unseen", "plain")))
    tokens = torch.randn(2, 24, 12)
    with pytest.raises(UnsupportedNetworkError, match="1 of the 3 blocks in '' show no attention"):
        record_attention(network, tokens)


@pytest.mark.parametrize(
    ("kinds", "silent"),
    [
        ("bbnn", None),  # what comes after the blocks, and is none
        ("nnbb", None),  # a stem
        ("bnbn", "1 of the 4 blocks in 'blocks' show no attention, the first being '1'"),
        ("nbnnb", "2 of the 5 blocks in 'blocks' show no attention, the first being '2'"),
        ("bnnbnn", "2 of the 6 blocks in 'blocks' show no attention, the first being '1'"),
    ],
)
def test_what_stands_between_blocks_is_missed_and_what_stands_around_them_is_not(kinds, silent):
    network = Network()
    network.blocks = nn.ModuleList(Mixer("plain") if k == "b" else nn.LayerNorm(12) for k in kinds)
    if silent is None:
        assert len(record_attention(network, IMAGES).blocks) == 2
    else:
        with pytest.raises(UnsupportedNetworkError, match=silent):
            record_attention(network, IMAGES)


def test_values_of_the_shape_of_attention_are_not_taken_for_it():
    """24 tokens of 24 channels, multiplied from the right: the left factor is no attention."""
    network = redraw(Network("plain"))
    network.blocks[0].qkv = redraw(nn.Linear(12, 72))
    network.blocks[0].forward = lambda tokens: tokens + _transposed(network.blocks[0].qkv(tokens))
    record = record_attention(network, IMAGES)
    query, key, _ = network.blocks[0].qkv(network.patches(IMAGES).flatten(2).mT).chunk(3, dim=-1)
    expected = (query @ key.mT).softmax(dim=-1).unsqueeze(1)
    assert_close(record.attentions[0], expected.detach(), rtol=1e-4, atol=1e-6)


def _transposed(qkv: Tensor) -> Tensor:
    query, key, value = qkv.unsqueeze(1).chunk(3, dim=-1)
    attention = (query @ key.mT).softmax(dim=-1)
    return (value.mT @ attention.mT).mT[:, 0, :, :12]


def test_a_plain_network_of_the_same_make_is_explained():
    """The refusals above are for what was done to it."""
    model = wrap_model(Network("plain", "plain"), image_size=(32, 48))
    recording = record_model(model, IMAGES)
    assert recording.layout.grid_size == (4, 6) and recording.layout.pooling == "avg"
