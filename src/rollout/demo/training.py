"""Train the demo model: a small Vision Transformer that says which objects an emoji scene holds."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.layers import Attention
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from rollout.demo.scenes import CLASSES, SceneDataset
from rollout.files import enter_shipped, whole_file
from rollout.models.load import DEMO_WEIGHTS

ARCHITECTURE = "vit_tiny_patch16_224"


PREPROCESSING = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
}


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the weights: equal settings see the same scenes in the same order."""

    steps: int = 4000
    depth: int = 6
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 150
    patch_drop_rate: float = 0.5
    full_image_steps: int = 800


def train(
    settings: TrainingSettings, checkpoint: str | Path, *, device: str = "cpu", save_every: int = 50
) -> nn.Module:
    """Train to the last step, from the checkpoint where there is one.

    Half of the patches are left out (Li et al., "Scaling Language-Image Pre-training via Masking",
    2023) until the last `full_image_steps`: the same learning in half of the time.

    Args:
        settings: steps, architecture and optimiser; those of the checkpoint must be equal.
        checkpoint: where the state is kept, rewritten whole every `save_every` steps.

    Returns:
        The network in eval mode, on `device`.
    """
    network = build_network(settings).to(device)
    optimizer = create_optimizer_v2(
        network,
        opt="adamw",
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.98),
    )
    done = _resume(checkpoint, settings, network, optimizer) if Path(checkpoint).exists() else 0
    batches = _batches(settings, done)
    with tqdm(
        batches, initial=done, total=settings.steps, desc="training", unit="step"
    ) as progress:
        for step, (images, labels) in enumerate(progress, start=done):
            loss = _step(network, optimizer, settings, step, images.to(device), labels.to(device))
            if (step + 1) % save_every == 0 or step + 1 == settings.steps:
                _save(checkpoint, settings, network, optimizer, step + 1)
                progress.set_postfix(loss=f"{loss.item():.4f}")
    return network.eval()


def build_network(settings: TrainingSettings) -> nn.Module:
    torch.manual_seed(settings.seed)
    network = timm.create_model(
        ARCHITECTURE,
        depth=settings.depth,
        num_classes=len(CLASSES),
        patch_drop_rate=settings.patch_drop_rate,
    )
    for module in network.modules():
        if isinstance(module, Attention):
            # Written out, the backward pass is twice as fast on a CPU.
            vars(module)["fused_attn"] = False
    return network


def normalise(images: Tensor) -> Tensor:
    """Bytes to [-1, 1], what the demo model is fed with."""
    return images.float().div(127.5).sub(1)


def _batches(settings: TrainingSettings, done: int) -> Iterator[tuple[Tensor, Tensor]]:
    scenes = SceneDataset(settings.seed, settings.steps * settings.batch_size)
    remaining = range(done * settings.batch_size, len(scenes))
    return iter(
        DataLoader(scenes, settings.batch_size, sampler=remaining, num_workers=1, prefetch_factor=8)
    )


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    step: int,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """One update of the weights; returns the loss."""
    network.train()
    if step >= settings.steps - settings.full_image_steps:
        network.patch_drop = nn.Identity()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step)
    with torch.autocast(images.device.type, torch.bfloat16):
        logits = network(normalise(images))
    loss = binary_cross_entropy_with_logits(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * warmup * (0.02 + 0.98 * cosine)


def _save(
    path: str | Path,
    settings: TrainingSettings,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "settings": asdict(settings),
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with whole_file(path) as partial:
        torch.save(state, partial)


def _resume(
    path: str | Path,
    settings: TrainingSettings,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load the checkpoint's state; returns the number of steps that are done."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != asdict(settings):
        raise ValueError(
            f"{path} was trained with {state['settings']}, asked for {asdict(settings)}; "
            "use the same settings or another checkpoint file"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def export(
    network: nn.Module,
    settings: TrainingSettings,
    quality: dict[str, dict[str, float]],
    weights: str | Path = DEMO_WEIGHTS,
) -> Path:
    """Write the weights in half precision, and the card that describes them beside them.

    Args:
        quality: what `quality.assess` measured, by method.
        weights: a .safetensors file; the card has its name with .json.

    Returns:
        The card's path.
    """
    with whole_file(weights) as partial:
        save_file({key: value.half() for key, value in network.state_dict().items()}, partial)
    card = {
        "name": "rollout demo model",
        "classes": list(CLASSES),
        "geometry": {"architecture": ARCHITECTURE, "depth": settings.depth},
        "preprocessing": PREPROCESSING,
        "training": asdict(settings),
        "quality": quality,
        "sha256": sha256(Path(weights).read_bytes()).hexdigest(),
    }
    path = Path(weights).with_suffix(".json")
    with whole_file(path) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n")
    enter_shipped(Path(weights))
    return enter_shipped(path)
