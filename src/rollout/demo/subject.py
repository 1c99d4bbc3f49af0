"""The model of a notebook, from the notebook's parameters."""

from typing import Any

from rollout.demo.class_means import with_class_means
from rollout.models.load import load_model
from rollout.models.model import Model


def load_subject(name: str, **given: Any) -> Model:
    """`load_model` for notebooks that explain classes, whatever the model.

    A network without a classifier gets the nearest of the scenes' twelve class means as one; it is
    said where that happens.

    Args:
        given: for `load_model`; what is None is not passed.
    """
    model = load_model(name, **{key: value for key, value in given.items() if value is not None})
    if model.num_classes:
        return model
    print(f"{model.name} has no classifier; here it names the nearest of twelve class means")
    return with_class_means(model)
