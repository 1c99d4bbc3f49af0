"""From what a person calls a class to its index."""

import numpy as np
import pytest
import torch
from torch import nn

from rollout.models.labels import class_index, class_indices, imagenet_labels

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


@pytest.mark.parametrize("target", [-1, 6, "6", "-1"])
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
