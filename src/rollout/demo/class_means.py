"""A classifier for a network that has none, without any training: the nearest class mean."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rollout.demo.scenes import CLASSES, draw_scene
from rollout.models.model import Model

SEED = 30_000  # training counts its seeds from 0, quality has 20 000


def with_class_means(model: Model, *, scenes: int = 10) -> Model:
    """The model with a classifier on its features: which class's mean is nearest?

    The logit of a class is minus half the squared distance of the features from the mean of scenes
    that show this class alone, in units of the scenes' own mean squared distance from it. What all
    classes have in common is left out: the rest is linear in the features, and speaks for one class
    against the others.

    Args:
        model: one without a classifier, whose network returns (batch, features).
        scenes: how many of each class are averaged, two or more.
    """
    if model.num_classes:
        raise ValueError(f"{model.name} has a classifier, of {model.num_classes} classes")
    if scenes < 2:
        raise ValueError(f"scenes must be at least 2, to see how far they spread; got {scenes}")
    features = torch.stack([_features(model, name, scenes) for name in CLASSES])
    means = features.mean(dim=1)  # (classes, scenes, features) -> (classes, features)
    spread = (features - means[:, None]).square().sum(dim=2).mean()
    head = nn.Linear(means.shape[1], len(CLASSES)).to(model.device, model.dtype)
    with torch.no_grad():
        head.weight.copy_((means - means.mean(dim=0)) / spread)
        head.bias.copy_(-means.square().sum(dim=1) / (2 * spread))
    network = nn.Sequential(model.network, head).eval()
    return replace(
        model, network=network, num_classes=len(CLASSES), labels=CLASSES, outputs="logits"
    )


def _features(model: Model, name: str, scenes: int) -> Tensor:
    """Of scenes that show one object of this class: (scenes, features)."""
    rng = np.random.default_rng((SEED, CLASSES.index(name)))
    pictures = [Image.fromarray(draw_scene(rng, (name,)).image) for _ in range(scenes)]
    with torch.no_grad():
        return model.network(model.images(pictures)).float()
