"""From what a person calls a class to its index."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rollout.models.labels import (
    as_labels,
    class_index,
    class_indices,
    imagenet_labels,
    joined,
    known_labels,
)

LABELS = ("tabby, tabby cat", "tiger cat", "crane, wader", "crane", "bull mastiff", "Sea lion")


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (3, 3),
        (np.int64(3), 3),
        ("3", 3),
        (" 3 ", 3),
        ("tabby, tabby cat", 0),
        ("tabby", 0),
        ("Tabby Cat", 0),
        (" sea LION ", 5),
        ("lion", 5),
        ("crane", 3),  # a whole description comes before one name of several
        ("mastiff", 4),
    ],
)
def test_index_and_labels(target: int | str, index: int) -> None:
    assert class_index(target, LABELS, 6) == index


def test_a_name_of_several_classes_lists_them() -> None:
    with pytest.raises(ValueError, match=r"'cat' names several .*0: tabby.*1: tiger cat.*an index"):
        class_index("cat", LABELS, 6)


@pytest.mark.parametrize("target", [-1, 6, 7, 6000, "6", "-1"])
def test_out_of_range(target: int | str) -> None:
    with pytest.raises(ValueError, match=r"class index must be in \[0, 5\], got -?\d"):
        class_index(target, LABELS, 6)


def test_a_misspelt_label_gets_suggestions() -> None:
    with pytest.raises(ValueError, match=r"unknown class 'taby'; did you mean 'tabby' \(0\)"):
        class_index("taby", LABELS, 6)


@pytest.mark.parametrize("target", ["zebra crossing", "", "  ", "²"])
def test_an_unknown_label_gets_examples(target: str) -> None:
    with pytest.raises(ValueError, match="unknown class .*; the labels are tabby, tabby cat, "):
        class_index(target, LABELS, 6)


def test_a_model_without_labels_asks_for_an_index() -> None:
    with pytest.raises(ValueError, match=r"no labels to look 'dog' up in; give an index in \[0, 5"):
        class_index("dog", None, 6)


@pytest.mark.parametrize("target", [True, None, 1.0, ["tabby"]])
def test_what_cannot_be_a_target(target: object) -> None:
    with pytest.raises(ValueError, match="must be a class index or a label, got"):
        class_index(target, LABELS, 6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tiger cat", [1, 1]),
        (2, [2, 2]),
        (torch.tensor(2), [2, 2]),
        (np.int64(2), [2, 2]),
        (["tabby", 3], [0, 3]),
        ((4, 5), [4, 5]),
        (torch.tensor([4, 5]), [4, 5]),
        (np.array([4, 5]), [4, 5]),
    ],
)
def test_one_target_for_all_images_or_one_for_each(target: object, expected: list[int]) -> None:
    assert class_indices(target, LABELS, 6, batch=2) == expected


@pytest.mark.parametrize("target", [[], [1], [1, 2, 3], torch.tensor([1, 2, 3])])
def test_as_many_targets_as_images(target: object) -> None:
    with pytest.raises(ValueError, match=r"got \d targets for 2 images"):
        class_indices(target, LABELS, 6, batch=2)


def test_a_fraction_is_no_class() -> None:
    with pytest.raises(ValueError, match="must be a class index or a label, got 2.5"):
        class_indices(torch.tensor(2.5), LABELS, 6, batch=2)


def test_imagenet_labels_go_by_the_number_of_classes() -> None:
    network = nn.Linear(2, 1000)
    network.num_classes = 1000
    labels = imagenet_labels(network, 1000)
    assert labels is not None and len(labels) == 1000
    assert class_index("African elephant", labels, 1000) == 386
    with pytest.raises(ValueError, match="'cat' names several classes"):
        class_index("cat", labels, 1000)


def test_no_imagenet_labels_for_other_tasks_or_without_a_classifier() -> None:
    network = nn.Linear(2, 5)
    assert imagenet_labels(network, 5) is None
    network.num_classes = 5
    assert imagenet_labels(network, 5) is None
    network.num_classes, network.pretrained_cfg = 0, {"num_classes": 1000}
    assert imagenet_labels(network, 192) is None


# What a network says of its classes


def described(**attributes: object) -> nn.Module:
    network = nn.Linear(2, 3)
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


def test_labels_come_in_the_order_of_their_numbers() -> None:
    named = described(config=SimpleNamespace(id2label={2: "c", 0: "a", 1: "b"}))
    assert known_labels(named, 3) == ("a", "b", "c")
    assert known_labels(named, 4) is None and known_labels(named, 0) is None


def test_numbers_for_labels_are_none() -> None:
    """What Hugging Face writes where nobody named the classes."""
    numbered = {index: f"LABEL_{index}" for index in range(1000)}
    network = described(config=SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"}))
    assert known_labels(network, 2) is None
    network = described(config=SimpleNamespace(id2label=numbered), num_classes=1000)
    assert known_labels(network, 1000) == imagenet_labels(network, 1000) != None  # noqa: E711
    network = described(config=SimpleNamespace(id2label={0: "cat", 1: "LABEL_1"}))
    assert known_labels(network, 2) == ("cat", "LABEL_1")


def test_a_configuration_of_timm_names_and_describes_its_classes() -> None:
    names = {"label_names": ["n1", "n2", "n3"]}
    table = {"n1": "one", "n3": "three, trio"}
    for described_as, expected in [
        (None, ("n1", "n2", "n3")),
        ("no table", ("n1", "n2", "n3")),
        (table, ("one", "n2", "three, trio")),
    ]:
        network = described(pretrained_cfg={**names, "label_descriptions": described_as})
        assert known_labels(network, 3) == expected
    both = described(
        pretrained_cfg=names, config=SimpleNamespace(id2label={0: "a", 1: "b", 2: "c"})
    )
    assert known_labels(both, 3) == ("a", "b", "c")
    for odd in ({"label_names": "abc"}, {}, None, "n1"):
        assert known_labels(described(pretrained_cfg=odd), 3) is None


@pytest.mark.parametrize(
    "labels",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), {0: "a", 1: "b"}, {"1": "b", "0": "a"}],
)
def test_labels_are_a_list_or_a_table(labels: object) -> None:
    assert as_labels(labels) == ("a", "b")


@pytest.mark.parametrize("labels", [{1: "a", 2: "b"}, {0: "a", 2: "b"}, {"a": 0, "b": 1}])
def test_a_table_that_leaves_classes_out_is_refused(labels: object) -> None:
    with pytest.raises(ValueError, match=r"keys 0, 1, 2, .*; got the keys \["):
        as_labels(labels)


@pytest.mark.parametrize("labels", ["ab", 3, {"a", "b"}, torch.ones(2)])
def test_labels_of_another_kind_are_refused(labels: object) -> None:
    with pytest.raises(TypeError, match="labels must be a list with one label per class, got"):
        as_labels(labels)


# One name, several classes


def test_the_closest_kind_of_name_counts() -> None:
    """A whole description, then one of its names, then a last word."""
    assert class_index("cat", ("big cat", "cat, kitty", "wild cat"), 3) == 1
    assert class_index("cat", ("cat, kitty", "cat"), 2) == 1
    assert class_index("walrus", ("seal", "sea lion,walrus"), 2) == 1
    assert class_index("lion", ("seal", "sea lion,walrus"), 2) == 1
    assert class_index("lion", ("seal", "sea lion, ,"), 2) == 1


@pytest.mark.parametrize(("cats", "more"), [(6, r"cat\)"), (7, "and 1 more"), (9, "and 3 more")])
def test_of_many_classes_six_are_listed(cats: int, more: str) -> None:
    with pytest.raises(ValueError, match="'cat' names several") as caught:
        class_index("cat", [f"{number} cat" for number in range(cats)], cats)
    assert "5: 5 cat" in str(caught.value) and "6: 6 cat" not in str(caught.value)
    caught.match(more)


@pytest.mark.parametrize(("classes", "end"), [(12, "11$"), (13, r"11, \.\.\.$")])
def test_of_many_labels_twelve_are_examples(classes: int, end: str) -> None:
    with pytest.raises(ValueError, match=f"the labels are 0, 1, .*{end}"):
        class_index("zebra", [str(number) for number in range(classes)], classes)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("*cat", frozenset({0, 1})),
        ("CRANE*", frozenset({2, 3})),
        ("t?bby", 0),
        ({"tabby", 3}, frozenset({0, 3})),
        ({"tabby", 0}, 0),
        ([{1, 2}, "crane"], [frozenset({1, 2}), 3]),
        (torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]).bool(), [frozenset({0, 3}), 2]),
    ],
)
def test_several_classes_are_one_target(target: object, expected: object) -> None:
    for_each = expected if isinstance(expected, list) else [expected] * 2
    assert class_indices(target, LABELS, 6, batch=2) == for_each


def test_no_class_is_no_target() -> None:
    with pytest.raises(ValueError, match="target is an empty set"):
        class_indices(set(), LABELS, 6, batch=2)
    with pytest.raises(ValueError, match=r"no label is like 'dog\*'; the labels are tabby"):
        class_indices("dog*", LABELS, 6, batch=2)
    with pytest.raises(ValueError, match="no labels to look 'dog' up in"):
        class_indices("dog", None, 6, batch=2)
    with pytest.raises(ValueError, match=r"no labels to look 'dog\*' up in"):
        class_indices("dog*", None, 6, batch=2)


def test_a_label_with_a_question_mark_is_itself() -> None:
    assert class_indices("Who?", ("who?", "whom"), 2, batch=1) == [0]
    assert class_indices("who*", ("who?", "whom"), 2, batch=1) == [frozenset({0, 1})]


def test_many_names_are_joined_briefly() -> None:
    assert joined(["a"]) == "a"
    assert joined(list("abcd")) == "a or b or c or d"
    assert joined(list("abcde")) == "a or b or c or 2 more"


def test_half_a_surrogate_pair_becomes_what_every_table_can_hold():
    assert as_labels(["\ud83d\ude00", "a\ud800b"]) == ("??", "a?b")
