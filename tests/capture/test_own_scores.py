"""Each block's own score: that of a network which ends after the block, written out by hand."""

import threading
from typing import Any

import pytest
import torch
from helpers import bare_answer, left_as_it_was, redraw, small_vit
from networks import WIDE, hf, made, photos_for
from torch import Tensor, nn
from torch.testing import assert_close

from rollout import explain, wrap_model
from rollout.capture import own_scores
from rollout.capture.forward_pass import record_attention
from rollout.capture.own_scores import own_record, own_score_gradients
from rollout.errors import UnsupportedNetworkError
from rollout.maths.relevance import legrad

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
KINDS: dict[str, dict[str, Any]] = {
    "class token": {},
    "registers": {"reg_tokens": 3, "init_values": 0.5},
    "average": {"global_pool": "avg", "class_token": False},
    "maximum": {"global_pool": "max"},
    "one block": {"depth": 1},
}


def by_hand(network: nn.Module, images: Tensor, targets: Tensor) -> list[Tensor]:
    """Block by block, from what comes out of the one below, with attention written out."""
    tokens, found = network.norm_pre(network._pos_embed(network.patch_embed(images))), []
    for block in network.blocks:
        kept: list[Tensor] = []
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(lambda *call, k=kept: k.append(call[-1]))
        tokens = block(tokens.detach())
        hook.remove()
        mean = tokens.mean(dim=1, keepdim=True).expand_as(tokens)
        scores = network.forward_head(network.norm(mean))[torch.arange(len(images)), targets]
        found += torch.autograd.grad(scores.sum(), kept)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_network_that_ends_after_the_block(kind):
    torch.manual_seed(0)
    network, targets = small_vit(**KINDS[kind]), torch.tensor([2, 5])
    with left_as_it_was(network):
        record = record_attention(network, IMAGES)
        own = own_score_gradients(network, IMAGES, record, targets).blocks
    model = wrap_model(network, image_size=(32, 48))
    found = explain(model, IMAGES, method="legrad_per_block", target=[2, 5]).map
    expected = by_hand(network, IMAGES, targets)
    assert len(own) == len(expected) == len(network.blocks)
    for ours, theirs in zip(own, expected, strict=True):
        assert theirs.abs().max() > 0
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    assert_close(found, model.layout.to_grid(legrad(expected)), rtol=1e-3, atol=1e-6)


def test_a_single_block_is_told_from_what_is_around_it():
    """With no other block to tell it from, it is what stands in a list, not the whole tower."""
    network = redraw(hf("ViTForImageClassification", "ViTConfig", WIDE, num_hidden_layers=1)())
    record = record_attention(network.eval(), IMAGES)
    own = own_record(network, IMAGES, record)
    assert_close(own.attentions[0], record.attentions[0])
    (tokens,) = tokens_of_blocks(network, network.vit.layers, IMAGES)
    expected = network.classifier(network.vit.layernorm(tokens.mean(dim=1)))
    assert_close(own.logits, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_set_of_classes_is_followed_in_every_block():
    torch.manual_seed(0)
    network = small_vit()
    record, chosen = record_attention(network, IMAGES), torch.zeros(2, 7, dtype=torch.bool)
    chosen[0, [1, 4]] = chosen[1, 2] = True
    both = own_score_gradients(network, IMAGES, record, chosen).blocks
    one, other = (
        own_score_gradients(network, IMAGES, record, torch.tensor(target)).blocks
        for target in ([1, 2], [4, 2])
    )
    for together, first, second in zip(both, one, other, strict=True):
        assert_close(together[0], first[0] + second[0], rtol=1e-4, atol=1e-5)
        assert_close(together[1], first[1], rtol=1e-4, atol=1e-5)


def tokens_of_blocks(network: nn.Module, blocks: nn.Module, images: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *call: kept.append(call[-1])) for block in blocks]
    network(images)
    for hook in hooks:
        hook.remove()
    return kept


def test_other_libraries_classify_each_blocks_mean_too():
    for name in ("torchvision", "ViT", "open_clip", "CLIP, classes", "DINOv2, registers"):
        network, images = made(name), photos_for(name)
        blocks, classify = {
            "torchvision": lambda n: (n.encoder.layers, lambda x: n.heads(n.encoder.ln(x))),
            "ViT": lambda n: (n.vit.layers, lambda x: n.classifier(n.vit.layernorm(x))),
            "open_clip": lambda n: (n.transformer.resblocks, lambda x: n.ln_post(x) @ n.proj),
            "CLIP, classes": lambda n: (n.vision_model.encoder.layers, n.classifier),
            "DINOv2, registers": lambda n: (
                n.dinov2_with_registers.encoder.layer,
                lambda x: n.classifier(n.dinov2_with_registers.layernorm(x).repeat(1, 2)),
            ),
        }[name](network)
        with left_as_it_was(network):
            own = own_record(network, images, record_attention(network, images))
        means = [tokens.mean(dim=1) for tokens in tokens_of_blocks(network, blocks, images)]
        assert_close(own.logits, classify(torch.cat(means)), rtol=1e-4, atol=1e-5, msg=name)


def test_another_thread_gets_its_own_answer():
    network, answers = small_vit(), []
    blocks, expected = list(network.blocks), bare_answer(network, IMAGES)
    network.requires_grad_(False)
    with own_scores._each_by_itself(blocks, (2, 25)):
        thread = threading.Thread(target=lambda: answers.append(network(IMAGES)))
        thread.start()
        thread.join()
    assert torch.equal(answers[0], expected)


class TwoBlocks(nn.Module):
    """Reads the class token after both blocks, as DINOv2's larger classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_vit(depth=2)
        self.head = nn.Linear(48, 7)

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.inner.get_intermediate_layers(images, 2, return_prefix_tokens=True)
        return self.head(torch.cat([first[1][:, 0], second[1][:, 0]], dim=1))


def test_a_network_that_reads_several_blocks_is_refused():
    network = TwoBlocks().eval()
    record = record_attention(network, IMAGES)
    with left_as_it_was(network), pytest.raises(UnsupportedNetworkError, match="use legrad"):
        own_record(network, IMAGES, record)


def test_attention_of_which_no_block_can_be_told_is_refused():
    class Shared(nn.Module):
        """One block, gone through twice."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_vit(depth=1)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.inner._pos_embed(self.inner.patch_embed(images))
            for _ in range(2):
                tokens = self.inner.blocks[0](tokens)
            return self.inner.forward_head(self.inner.norm(tokens))

    network = Shared().eval()
    record = record_attention(network, IMAGES)
    assert len(record.blocks) == 2
    with pytest.raises(UnsupportedNetworkError, match="no module for each block"):
        own_record(network, IMAGES, record)
