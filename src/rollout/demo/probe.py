"""A linear probe: teach a frozen backbone the scenes' classes from its class token alone."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import trange

from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.maths.metrics import mean_average_precision
from rollout.models.foundation import PROBE_WEIGHTS, SHA256
from rollout.models.load import wrap_model
from rollout.models.model import Model
from rollout.models.shipped import write_shipped


@dataclass(frozen=True)
class ProbeSettings:
    """What decides the classifier.

    Attributes:
        scenes: how many are learned from, of one to three objects.
        held_out: the share of them that chooses the penalty.
        penalties: of the squared weights of standardised features, to choose from.
    """

    scenes: int = 3000
    seed: int = 0
    held_out: float = 0.2
    penalties: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class SceneFeatures:
    """What a backbone says of some scenes.

    Attributes:
        class_token, patch_mean: its last class token and the average of its patches' tokens,
            (scenes, channels).
        present: which of CLASSES are there, (scenes, classes) of bool.
    """

    class_token: Tensor
    patch_mean: Tensor
    present: Tensor


def scene_features(model: Model, scenes: SceneDataset, *, batch_size: int = 20) -> SceneFeatures:
    """Run a network of timm on all scenes."""
    network: Any = model.network
    class_tokens, patch_means, present = [], [], []
    for start in trange(0, len(scenes), batch_size, desc="features", unit="batch"):
        numbers = range(start, min(start + batch_size, len(scenes)))
        batch = [scenes.scene(number) for number in numbers]
        images = model.images([Image.fromarray(scene.image) for scene in batch])
        # Twice as fast on a CPU, and below a hundredth of the features' spread away.
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
            tokens = network.forward_features(images).float().cpu()
        class_tokens.append(tokens[:, 0])
        patch_means.append(tokens[:, model.layout.num_prefix_tokens :].mean(dim=1))
        present.append(torch.stack([scene.labels for scene in batch]).bool())
    return SceneFeatures(*(torch.cat(parts) for parts in (class_tokens, patch_means, present)))


@dataclass(frozen=True)
class Probe:
    """A linear classifier: logits = features @ weight.T + bias.

    Attributes:
        weight: (classes, channels).
        bias: (classes,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


def fit_probe(features: Tensor, present: Tensor, penalty: float) -> Probe:
    """Logistic regression for each class, on features of mean 0 and deviation 1.

    The standardisation is folded into the weights, so that the probe takes features as they are.

    Args:
        features: (scenes, channels).
        present: (scenes, classes) of bool.
        penalty: half of it times the squared weights is added to the mean loss.
    """
    features, present = features.double(), present.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0)
    standardised = (features - mean) / deviation
    weight = torch.zeros(present.shape[1], features.shape[1], dtype=torch.double)
    bias = torch.zeros(present.shape[1], dtype=torch.double)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = standardised @ weight.T + bias
        fit = binary_cross_entropy_with_logits(logits, present, reduction="none")
        total = fit.mean(dim=0).sum() + penalty / 2 * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    scaled = weight.detach() / deviation
    return Probe(scaled.float(), (bias.detach() - scaled @ mean).float())


def choose_penalty(
    features: Tensor, present: Tensor, settings: ProbeSettings
) -> tuple[float, dict[float, float]]:
    """The penalty with the best mean average precision on the last, held-out scenes; and each's."""
    kept = len(features) - int(settings.held_out * len(features))
    quality = {}
    for penalty in settings.penalties:
        probe = fit_probe(features[:kept], present[:kept], penalty)
        logits = probe(features[kept:])
        quality[penalty] = mean_average_precision(logits, present[kept:]).item()
    return max(quality, key=quality.__getitem__), quality


def with_probe(model: Model, probe: Probe) -> Model:
    """The backbone with the probe as its classifier, to be explained; `model` stays as it was."""
    network: Any = deepcopy(model.network)
    network.reset_classifier(len(probe.weight))
    network.head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
    network.head.to(model.device)
    return wrap_model(network, labels=CLASSES, name="dinov2_scenes", outputs="multi_label")


def export_probe(
    probe: Probe,
    settings: ProbeSettings,
    penalty: float,
    quality: Mapping[str, Mapping[str, float]],
    weights: str | Path = PROBE_WEIGHTS,
) -> Path:
    """Write the classifier, and the card that describes it beside it; returns the card's path.

    Args:
        quality: what `quality.assess` measured, by method.
        weights: a .safetensors file; the card has its name with .json.
    """
    card = {
        "name": "linear probe of DINOv2 ViT-S/14 on emoji scenes",
        "classes": list(CLASSES),
        "backbone": {"model": "dinov2_small", "sha256": SHA256},
        "training": {**asdict(settings), "penalty": penalty},
        "quality": quality,
    }
    return write_shipped(weights, {"weight": probe.weight, "bias": probe.bias}, card)
