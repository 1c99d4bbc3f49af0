"""What a network's output means: classes or features, logits, probabilities or values."""

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from helpers import redraw, small_vit
from networks import WIDE, hf
from torch import Tensor, nn
from torch.testing import assert_close

from rollout.explanations.explaining import explain
from rollout.models.load import load_model, wrap_model

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:nothing in .* says how its images")


class Headed(nn.Module):
    """Something of one's own on the features of a backbone, 24 of them."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.backbone, self.answer = small_vit(num_classes=0), head
        self.weight = nn.Parameter(torch.randn(24, 24))

    def forward(self, images: Tensor) -> Any:
        features = self.backbone(images)
        return (
            self.answer(features, self.weight)
            if isinstance(self.answer, partial)
            else (self.answer(features))
        )


def with_projection(name: str) -> nn.Module:
    network = nn.Sequential(small_vit(num_classes=0))
    network.add_module(name, nn.Linear(24, 24))
    return network


# Features are as many as classes could be: 24 everywhere.
FEATURES = {
    "no head": lambda: small_vit(num_classes=0),
    "head taken off": lambda: taken_off(),
    "product with a parameter": lambda: Headed(partial(torch.matmul)),
    "normalised": lambda: Headed(nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24))),
    "unit length": lambda: Headed(
        partial(lambda x, w: nn.functional.normalize(nn.functional.linear(x, w), dim=-1))
    ),
    "divided by its length": lambda: Headed(
        partial(lambda x, w: nn.functional.linear(x, w) / x.norm(dim=-1, keepdim=True))
    ),
    "residual": lambda: Headed(partial(lambda x, w: x + nn.functional.linear(x, w))),
    "projection": lambda: with_projection("visual_projection"),
    "pooler": lambda: with_projection("pooler"),
    "Hugging Face": hf("ViTModel", "ViTConfig", WIDE),
}
CLASSES = {
    "timm": (lambda: small_vit(num_classes=24), "logits"),
    "head put on": (lambda: put_on(), "logits"),
    "linear": (lambda: Headed(nn.Linear(24, 24)), "logits"),
    "temperature": (
        lambda: Headed(partial(lambda x, w: nn.functional.linear(x, w) * 3 + 1)),
        "logits",
    ),
    "two heads": (lambda: Headed(Mean()), "logits"),
    "perceptron": (
        lambda: Headed(nn.Sequential(nn.Linear(24, 9), nn.GELU(), nn.Linear(9, 24))),
        "logits",
    ),
    "convolution": (
        lambda: Headed(
            nn.Sequential(nn.Unflatten(1, (24, 1, 1)), nn.Conv2d(24, 24, 1), nn.Flatten())
        ),
        "logits",
    ),
    "softmax": (lambda: nn.Sequential(small_vit(num_classes=24), nn.Softmax(-1)), "probabilities"),
    "sigmoid": (lambda: nn.Sequential(small_vit(num_classes=24), nn.Sigmoid()), "probabilities"),
    "log_softmax": (lambda: nn.Sequential(small_vit(num_classes=24), nn.LogSoftmax(-1)), "logits"),
    "tanh": (lambda: Headed(nn.Sequential(nn.Linear(24, 24), nn.Tanh())), "value"),
    "percent": (
        lambda: Headed(partial(lambda x, w: 100 * nn.functional.linear(x, w).softmax(-1))),
        "value",
    ),
    "one": (lambda: small_vit(num_classes=1), "value"),
    "one, sigmoid": (
        lambda: nn.Sequential(small_vit(num_classes=1), nn.Sigmoid()),
        "probabilities",
    ),
    "one, softmax": (lambda: nn.Sequential(small_vit(num_classes=1), nn.Softmax(-1)), "value"),
    "and more": (lambda: Headed(partial(lambda x, w: (nn.functional.linear(x, w), x))), "logits"),
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=5),
        "logits",
    ),
}
for problem, outputs in (
    ("multi_label_classification", "multi_label"),
    ("single_label_classification", "logits"),
    ("regression", "value"),
    (None, "logits"),
):
    make = hf("ViTForImageClassification", "ViTConfig", WIDE, problem_type=problem)
    CLASSES[f"Hugging Face, {problem}"] = make, outputs


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, features: Tensor) -> Tensor:
        return (self.one(features) + self.other(features)) / 2


def taken_off() -> nn.Module:
    network = small_vit(num_classes=24)  # which timm's attribute still says
    network.head = nn.Identity()
    return network


def put_on() -> nn.Module:
    network = small_vit(num_classes=7)
    network.head = nn.Linear(24, 24)
    return network


def wrapped(make: Any, **options: Any) -> Any:
    network = redraw(make()).eval()
    size = 32 if isinstance(network, torchvision.models.VisionTransformer) else (32, 48)
    return wrap_model(network, image_size=size, **options)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_no_classes_however_many(name):
    model = wrapped(FEATURES[name])
    assert model.num_classes == 0 and model.labels is None
    assert explain(model, IMAGES).title() == "attention rollout"
    labelled = wrapped(FEATURES[name], labels=[f"thing {index}" for index in range(24)])
    assert labelled.num_classes == 24 and labelled.label(3) == "thing 3"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_told_by_what_made_them(name):
    make, outputs = CLASSES[name]
    model = wrapped(make)
    assert model.num_classes > 0 and model.outputs == outputs


def test_labels_for_features_must_be_as_many():
    with pytest.raises(ValueError, match=r"got 5 labels for a network with 24 values \(features"):
        wrapped(FEATURES["no head"], labels=list("abcde"))


def test_probabilities_are_the_networks_own():
    network = small_vit()
    logits = network(IMAGES).detach()
    for ending, shown in [
        (nn.Softmax(dim=-1), logits.softmax(dim=-1)),
        (nn.Sigmoid(), logits.sigmoid()),
        (nn.LogSoftmax(dim=-1), logits.softmax(dim=-1)),
        (nn.Identity(), logits.softmax(dim=-1)),
    ]:
        model = wrap_model(nn.Sequential(network, ending), image_size=(32, 48))
        found = explain(model, IMAGES, target=[2, 5]).probability
        assert_close(found, shown[[0, 1], [2, 5]], rtol=1e-4, atol=1e-5)


def test_what_is_told_counts():
    network = small_vit(num_classes=3)
    logits = network(IMAGES).detach()
    model = wrap_model(network, outputs="multi_label", labels=["edema", "mass", "nodule"])
    assert model.multi_label
    found = explain(model, IMAGES, target="mass")
    assert_close(found.probability, logits.sigmoid()[:, 1])
    model = wrap_model(network, outputs="value")
    found = explain(model, IMAGES, target=1)
    assert found.probability is not None and found.probability.isnan().all()
    assert found.title(1) == f"gradient rollout: class 1 ({logits[1, 1]:.3g})"
    with pytest.raises(ValueError, match="outputs must be one of logits, .*got 'sigmoid'"):
        wrap_model(network, outputs="sigmoid")  # type: ignore[arg-type]


def test_a_single_output_is_shown_as_the_value_that_it_is():
    network = small_vit(num_classes=1)
    value = network(IMAGES).detach()
    found = explain(wrap_model(network), IMAGES)
    assert found.title(1).startswith(f"gradient rollout: output ({value[1, 0]:.3g})")
    yes = explain(wrap_model(network, labels=["tumour"], outputs="multi_label"), IMAGES)
    assert_close(yes.probability, value[:, 0].sigmoid())
    with pytest.raises(ValueError, match="softmax of a single output is always 1"):
        wrap_model(network, outputs="logits")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({0: "cat"}, ValueError, "got 1 labels for a network with 7 classes"),
        ({1: "cat", 2: "dog"}, ValueError, r"keys 0, 1, 2, ... of all classes; got .*\[1, 2\]"),
        ({"cat": 0}, ValueError, "the keys"),
        ("catdogs", TypeError, "labels must be a list with one label per class, got 'catdogs'"),
        (7, TypeError, "labels must be a list"),
    ],
)
def test_labels_that_are_no_list(labels, error, message):
    with pytest.raises(error, match=message):
        wrap_model(small_vit(), labels=labels)


@pytest.mark.parametrize("key", [int, str])
def test_a_table_of_labels_is_read_by_its_keys(key):
    table = {key(index): f"thing {index}" for index in (3, 0, 6, 1, 5, 2, 4)}
    assert wrap_model(small_vit(), labels=table).labels == tuple(f"thing {i}" for i in range(7))


# Several classes as one target

LABELS = ["tabby, tabby cat", "tiger cat", "dog", "cattle truck", "crane", "crane", "car"]


def test_a_set_of_classes_is_the_sum_of_their_logits():
    model = wrap_model(small_vit(), labels=LABELS)
    found = explain(model, IMAGES, target={"tabby", "tiger cat"})
    score = explain(model, IMAGES, score=lambda logits: logits[:, 0] + logits[:, 1])
    assert_close(found.map, score.map)
    shares = model.network(IMAGES).softmax(dim=-1).detach()
    assert_close(found.probability, shares[:, 0] + shares[:, 1])
    assert found.target == (frozenset({0, 1}),) * 2
    percent = found.title().partition("tabby or tiger cat (")[2]
    assert found.title().startswith("gradient rollout: tabby or tiger cat (") and "%" in percent


def test_each_image_may_have_its_own_set():
    model = wrap_model(small_vit(), labels=LABELS)
    both = explain(model, IMAGES, target=[{0, 2}, "car"])
    assert both.target == (frozenset({0, 2}), 6)
    for index, target in enumerate([{2, 0}, 6]):
        alone = explain(model, IMAGES[[index]], target=target)
        assert_close(both.map[index], alone.map[0], rtol=1e-4, atol=1e-6)
    assert explain(model, IMAGES, target={3}).target == (3, 3)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*cat", {0, 1}),
        ("*CAT*", {0, 1, 3}),
        ("crane*", {4, 5}),
        ("c?r", 6),
        ({"crane*"}, None),
    ],
)
def test_a_pattern_stands_for_the_labels_that_are_like_it(pattern, expected):
    model = wrap_model(small_vit(), labels=LABELS)
    if expected is None:
        with pytest.raises(ValueError, match="unknown class"):
            explain(model, IMAGES, target=pattern)
    else:
        one = expected if isinstance(expected, int) else frozenset(expected)
        assert explain(model, IMAGES, target=pattern).target == (one, one)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (set(), "target is an empty set"),
        ({"tabby", "no such"}, "unknown class 'no such'"),
        ({0, 7}, r"class index must be in \[0, 6\], got 7"),
        ("*zebra*", r"no label is like '\*zebra\*'"),
    ],
)
def test_sets_that_make_no_sense(target, message):
    with pytest.raises(ValueError, match=message):
        explain(wrap_model(small_vit(), labels=LABELS), IMAGES, target=target)


def test_of_classes_that_go_together_no_sum_of_probabilities_is_shown():
    demo = load_model("demo", device="cpu")
    found = explain(demo, demo.black_image(), target={"cat", "dog"})
    assert found.title().partition(",")[0] == "gradient rollout: cat or dog"
    many = explain(demo, demo.black_image(), target=set(range(6)))
    assert many.labels is not None and many.labels[0].endswith("or 3 more")
