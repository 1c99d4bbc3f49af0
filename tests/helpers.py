"""What several tests need: attention that sums to one, and small networks with real structure."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import nbformat
import timm
import torch
from torch import Tensor, nn


def random_attention(
    batch: int = 2, heads: int = 3, tokens: int = 5, *, peak: float = 1.0
) -> Tensor:
    """Attention of one block, (batch, heads, tokens, tokens); a higher peak is more decided."""
    return (peak * torch.randn(batch, heads, tokens, tokens)).softmax(dim=-1)


ROOT = Path(__file__).parents[1]


def small_vit(**options: object) -> nn.Module:
    """A ViT of 3 blocks on images of 32 x 48 pixels: 24 patches and a class token, 7 classes.

    The weights are large enough that attention is decided and no gradient vanishes.
    """
    defaults = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return redraw(timm.models.VisionTransformer(**{**defaults, "num_classes": 7, **options})).eval()


def redraw(network: nn.Module, std: float = 0.3) -> nn.Module:
    """Large random weights everywhere: no zero heads, no LayerScale at 1e-6."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    return network


def bare_answer(network: nn.Module, images: Tensor) -> Tensor:
    """What the network returns by itself, with frozen weights: for trainable ones torch takes other
    kernels, even where no gradient is asked for, and on some processors they round otherwise."""
    with torch.no_grad():
        return deepcopy(network).requires_grad_(False)(images)


@contextmanager
def left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Fails if what happens inside leaves a trace on the network."""
    before = condition(network)
    yield
    assert condition(network) == before


def condition(network: nn.Module) -> list[object]:
    """All that a call could leave changed: modes, hooks, gradients, flags, values."""
    modules = [
        (module.training, [len(v) for k, v in sorted(vars(module).items()) if k.endswith("_hooks")])
        for module in network.modules()
    ]
    flags = [
        (p.requires_grad, None if p.grad is None else p.grad.sum().item(), p._version)
        for p in network.parameters()
    ]
    return [modules, flags, [buffer.float().sum().item() for buffer in network.buffers()]]


def write_notebook(path: Path, *sources: str) -> Path:
    """A notebook with a cell for each source, the first one tagged as parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path
