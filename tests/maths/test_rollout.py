"""The laws of rollout, and the paper's product written out in numpy."""

import numpy as np
import pytest
import torch
from helpers import random_attention
from torch.testing import assert_close

from rollout.maths.rollout import attention_rollout, gradient_rollout

BATCH, HEADS, TOKENS, BLOCKS = 2, 3, 5, 4


def attentions(peak: float = 2.0) -> list[torch.Tensor]:
    return [random_attention(BATCH, HEADS, TOKENS, peak=peak) for _ in range(BLOCKS)]


def product_by_hand(blocks, reduce, ratio, start=0):
    """Abnar & Zuidema with vit-explain's knobs, one image at a time, float64."""
    results = []
    for image in range(BATCH):
        result = np.eye(TOKENS)
        for block in blocks[start:]:
            fused = reduce(block[image].double().numpy())
            lowest = np.argsort(fused.ravel(), kind="stable")[: int(ratio * fused.size)]
            kept = fused.ravel().copy()
            kept[lowest[lowest != 0]] = 0
            matrix = kept.reshape(TOKENS, TOKENS) + np.eye(TOKENS)
            result = (matrix / matrix.sum(axis=1, keepdims=True)) @ result
        results.append(result)
    return torch.from_numpy(np.stack(results)).float()


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("start_block", [0, 2])
def test_rollout_equals_the_product_by_hand(head_fusion, ratio, start_block):
    blocks = attentions()
    reduce = {"mean": np.mean, "max": np.max, "min": np.min}[head_fusion]
    expected = product_by_hand(blocks, lambda heads: reduce(heads, axis=0), ratio, start_block)
    actual = attention_rollout(
        blocks, head_fusion=head_fusion, discard_ratio=ratio, start_block=start_block
    )
    assert_close(actual, expected)


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_gradient_rollout_equals_the_product_by_hand(head_fusion, ratio):
    blocks, gradients = attentions(), [torch.randn(BATCH, HEADS, TOKENS, TOKENS) for _ in range(4)]
    reduce = {"mean": np.mean, "max": np.max, "min": np.min}[head_fusion]
    weighted = [block * gradient for block, gradient in zip(blocks, gradients, strict=True)]
    expected = product_by_hand(weighted, lambda x: reduce(x, axis=0).clip(min=0), ratio)
    actual = gradient_rollout(blocks, gradients, head_fusion=head_fusion, discard_ratio=ratio)
    assert_close(actual, expected)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9])
def test_rows_are_distributions(ratio):
    rows = attention_rollout(attentions(), head_fusion="max", discard_ratio=ratio)
    assert (rows >= 0).all()
    assert_close(rows.sum(dim=-1), torch.ones(BATCH, TOKENS))


def test_identity_attention_gives_identity():
    identity = torch.eye(TOKENS).expand(BATCH, HEADS, TOKENS, TOKENS)
    assert_close(attention_rollout([identity] * 3), identity[:, 0])


def test_gradients_of_zero_give_identity():
    nothing = [torch.zeros(BATCH, HEADS, TOKENS, TOKENS)] * BLOCKS
    identity = torch.eye(TOKENS).expand(BATCH, TOKENS, TOKENS)
    assert_close(gradient_rollout(attentions(), nothing), identity)


def test_a_uniform_last_block_mixes_all_rows_of_those_below():
    below, uniform = attentions(), torch.full((BATCH, HEADS, TOKENS, TOKENS), 1 / TOKENS)
    rows = attention_rollout([*below, uniform])
    lower = attention_rollout(below)
    assert_close(rows, 0.5 * lower + 0.5 * lower.mean(dim=1, keepdim=True))


def test_permuting_tokens_permutes_the_map():
    blocks, order = attentions(), torch.tensor([0, 3, 1, 4, 2])
    permuted = [block[:, :, order][..., order] for block in blocks]
    expected = attention_rollout(blocks, discard_ratio=0.5)[:, order][..., order]
    assert_close(attention_rollout(permuted, discard_ratio=0.5), expected)


def test_a_batch_equals_its_images_one_by_one():
    blocks = attentions()
    single = [
        attention_rollout([block[i : i + 1] for block in blocks], discard_ratio=0.6)
        for i in range(BATCH)
    ]
    assert_close(attention_rollout(blocks, discard_ratio=0.6), torch.cat(single))


@pytest.mark.parametrize("per_image", [False, True])
def test_a_readout_mixes_the_rows_of_the_full_matrix(per_image):
    blocks = attentions()
    readout = torch.rand((BATCH, TOKENS) if per_image else (TOKENS,))
    readout = readout / readout.sum(dim=-1, keepdim=True)
    rows = attention_rollout(blocks, head_fusion="max", discard_ratio=0.5)
    expected = (readout.expand(BATCH, TOKENS).unsqueeze(1) @ rows).squeeze(1)
    actual = attention_rollout(blocks, head_fusion="max", discard_ratio=0.5, readout=readout)
    assert_close(actual, expected)


def test_dtype_follows_the_attention():
    rows = attention_rollout([block.double() for block in attentions()], readout=torch.eye(5)[0])
    assert rows.dtype == torch.float64
    assert_close(rows.sum(dim=-1), torch.ones(BATCH, dtype=torch.float64))


def test_arguments_are_not_changed():
    blocks, gradients = attentions(), attentions()
    before = [tensor.clone() for tensor in blocks + gradients]
    gradient_rollout(blocks, gradients, discard_ratio=0.5)
    for tensor, copy in zip(blocks + gradients, before, strict=True):
        assert_close(tensor, copy, rtol=0, atol=0)


def test_no_blocks_is_an_error():
    with pytest.raises(ValueError, match="attentions is empty"):
        attention_rollout([])


def test_blocks_of_different_size_are_an_error():
    with pytest.raises(ValueError, match="blocks differ in size: 4 tokens above, 5 below"):
        attention_rollout([random_attention(tokens=5), random_attention(tokens=4)])


def test_one_gradient_too_few_is_an_error():
    with pytest.raises(ValueError, match="4 attentions but 3 gradients"):
        gradient_rollout(attentions(), attentions()[:3])


def test_queries_must_match_keys():
    with pytest.raises(ValueError, match="as many queries as keys, got 4 and 6"):
        attention_rollout([torch.rand(2, 3, 4, 6)])
