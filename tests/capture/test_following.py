"""What is followed through a pass: a softmax to its values, a linear layer to the answer."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, einsum, nn
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close

from rollout.capture import answer as answers
from rollout.capture import probabilities as following
from rollout.capture.answer import Answer, Answers
from rollout.capture.einsum import Equation
from rollout.capture.kernels import kernel_out_of_sight
from rollout.capture.probabilities import Probabilities

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 5, 7, 4
EQUATIONS = {
    "bhqk,bhkd->bhqd": 0,
    "bhqk,bhkd->bqhd": 0,
    "bhqk, bhkd -> bhdq": 0,
    "bhkd,bhqk->bqhd": 1,  # attention second
    "qkbh,bkhd->bqhd": 0,
    "bhqk,bkd->bhqd": 0,  # values that all heads share
    "bqk,bkd->bqd": 0,
    "...qk,...kd->...qd": 0,
    "...kd,...qk->...qd": 1,
}
SIZES = {"b": BATCH, "h": HEADS, "q": QUERIES, "k": KEYS, "d": WIDTH, "e": 2}


def tensor(axes: str) -> Tensor:
    return torch.randn([SIZES[axis] for axis in axes.replace("...", "bh")])


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_einstein_sum_is_a_product_of_attention_and_values(equation):
    place, axes = EQUATIONS[equation], equation.replace(" ", "").partition("->")[0].split(",")
    operands = [tensor(one) for one in axes]
    attention, values = operands[place], operands[1 - place]
    key = axes[place].replace("...", "bh").index("k") - attention.dim()
    read = Equation.read(equation, place, attention.dim(), values.dim(), key)
    output = einsum(equation, *operands)
    assert read is not None
    by_hand = read.by_key(attention) @ read.laid_out(values)
    assert by_hand.shape[-2:] == (QUERIES, WIDTH)
    assert_close(read.by_query(output), by_hand, rtol=1e-4, atol=1e-5)
    assert torch.equal(read.as_written(read.by_query(output)), output)


@pytest.mark.parametrize(
    ("equation", "place"),
    [
        ("bhqk,bhkd", 0),  # the order of what comes out is not written
        ("bhqk,bhkd,bhkd->bhqd", 0),
        ("bhqk,bhkd->bhqkd", 0),  # nothing is summed
        ("bhqk,bhkd->bhd", 0),  # over the queries, too
        ("bhqk,bhkd->bhkd", 0),  # over the queries alone
        ("bhqk,bhkde->bhqde", 0),
        ("bhqk,bhk->bhq", 0),  # no channels
        ("bhqk,bhqd->bhqd", 0),  # the keys meet nothing
        ("bhqk,hg->bgqk", 0),  # heads are mixed
        ("qk,kd->qd", 0),  # without images
        ("bhqk,bhkd->bqd", 0),  # over the heads, too
    ],
)
def test_what_is_no_product_with_values_is_not_read_as_one(equation, place):
    axes = equation.partition("->")[0].split(",")
    assert Equation.read(equation, place, len(axes[0]), len(axes[1]), -1) is None
    assert Equation.read("bhqk,bhkd->bhqd", 0, 4, 5, -1) is None
    assert Equation.read("bhqk,bhkd->bhqd", 0, 5, 4, -1) is None


@pytest.mark.parametrize("dim", [3, -1, 2, -2, 0])
def test_the_keys_are_found_in_every_view(dim):
    found, softmax = Probabilities(), torch.rand(2, 3, 5, 7)
    found.start(softmax, dim)
    size = softmax.shape[dim]
    assert found.keys == size and found.softmax is softmax
    moved = softmax.detach().clone()
    found.follow(moved, [None, softmax])  # as dropout makes it
    for one in (softmax, moved):
        for view in (one, one.transpose(-2, -1), one.permute(3, 1, 0, 2), one[None], one.mT.mT):
            assert view.shape[found.key_of(view)] == size and found.holds(view)
    assert not found.holds(torch.rand(2, 3, 5, 7)) and not found.holds("softmax")
    found.forget()
    assert not found.holds(softmax) and found.softmax is None


def test_a_product_counts_where_it_sums_over_the_keys():
    found, softmax = Probabilities(), torch.rand(2, 3, 5, 7)
    found.start(softmax, -1)
    assert found.multiplies(softmax, key=-1) and not found.multiplies(softmax, key=-2)
    assert found.multiplies(softmax.mT, key=-2) and not found.multiplies(softmax.mT, key=-1)
    assert found.multiplies(softmax[0], key=-1)
    assert not found.multiplies(softmax[0, 0], key=-1)  # a matrix alone
    assert not found.multiplies(softmax[..., :6], key=-1)  # not all keys
    assert not found.multiplies(softmax[:, :, :4], key=-1)  # not all queries
    assert not found.multiplies(torch.rand(2, 3, 5, 7), key=-1)


@pytest.mark.parametrize(
    ("shape", "square"),
    [((2, 3, 5, 5), True), ((2, 3, 5, 7), False), ((2, 3, 1, 1), False), ((5, 3, 2, 5), True)],
)
def test_attention_among_tokens_is_square(shape, square):
    found = Probabilities()
    assert not found.square
    found.start(torch.rand(shape), -1)
    assert found.square == square
    found.forget()
    assert not found.square


def test_what_follows_is_not_kept_without_end():
    found, made = Probabilities(), torch.rand(2, 3, 5, 5)
    found.start(made, -1)
    for _ in range(following.MOST_STEPS - 1):
        before, made = made, torch.rand(2, 3, 5, 5)
        found.follow(made, [before])
    assert found.holds(made)
    found.follow(last := torch.rand(2, 3, 5, 5), [made])
    assert not found.holds(last) and not found.holds(made)


def test_an_answer_is_followed_from_its_linear_layer():
    followed, logits = Answers(), torch.rand(2, 5)
    followed.follow(torch.softmax, logits, [logits])
    assert followed.of(logits) is None
    followed.start(logits, "head")
    assert followed.of(logits) == Answer("head")
    steps = [
        (torch.flatten, [], None),
        (torch.mul, [2.0], None),
        (torch.softmax, [-1], "softmax"),
        (torch.cat, [], "softmax"),
        (torch.mul, [2.0], "arithmetic"),
        (torch.sigmoid, [], "sigmoid"),
    ]
    for function, others, activation in steps:
        before, logits = logits, torch.rand(2, 5)
        followed.follow(function, logits, [[before] if function is torch.cat else before, *others])
        assert followed.of(logits) == Answer("head", activation)


@pytest.mark.parametrize(
    ("function", "others"),
    [
        (torch.nn.functional.layer_norm, []),  # makes features of it
        (torch.add, [torch.rand(2, 5)]),  # with what is no answer
    ],
)
def test_an_answer_ends_where_something_else_comes_in(function, others):
    followed, logits, output = Answers(), torch.rand(2, 5), torch.rand(2, 5)
    followed.start(logits, "head")
    followed.follow(function, output, [logits, *others])
    assert followed.of(output) is None
    followed.follow(torch.add, output, [logits, torch.rand(5), 1.0])  # a bias, a number
    assert followed.of(output) == Answer("head")
    followed.start(other := torch.rand(2, 5), "other")
    followed.follow(torch.add, output, [other, logits])  # in place: it stays what it was
    assert followed.of(output) == Answer("head")


def test_answers_are_not_kept_without_end():
    followed, kept = Answers(), [torch.rand(2, 5) for _ in range(answers.MOST_STEPS + 1)]
    for place, one in enumerate(kept):
        followed.start(one, str(place))
    assert followed.of(kept[0]) is None
    assert [followed.of(one) for one in kept[1:]] == [
        Answer(str(place)) for place in range(1, len(kept))
    ]


class Chosen(nn.Module):
    def __init__(self, implementation: object, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.config, self.inner = SimpleNamespace(_attn_implementation=implementation), inner


@pytest.mark.parametrize("seen", [None, "eager", "sdpa", 3])
def test_the_kernel_of_a_configuration_is_named_where_it_is_out_of_sight(seen):
    assert kernel_out_of_sight(Chosen(seen)) is None
    assert kernel_out_of_sight(Chosen(seen, Chosen("flash_attention_2"))) == "flash_attention_2"


class Flexible(nn.Module):
    def forward(self, query: Tensor) -> Tensor:
        return flex_attention(query, query, query)


def test_a_kernel_that_a_module_calls_is_named():
    assert kernel_out_of_sight(nn.Sequential(nn.Linear(2, 2), Flexible())) == "flex_attention"
    assert kernel_out_of_sight(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) is None
