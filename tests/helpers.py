"""What several tests need: attention that sums to one, and small networks with real structure."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from re import escape

import nbformat
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def random_attention(
    batch: int = 2, heads: int = 3, tokens: int = 5, *, peak: float = 1.0
) -> Tensor:
    """Attention of one block, (batch, heads, tokens, tokens); a higher peak is more decided."""
    return (peak * torch.randn(batch, heads, tokens, tokens)).softmax(dim=-1)


ROOT = Path(__file__).parents[1]
BAD_RATIOS = (-0.1, 1.0, float("nan"), "abc", None, True)
BAD_FUSIONS = ("median", ["mean"], None)
# Whatever takes these settings refuses them, with the same words.
BAD_SETTINGS = [
    *(
        ({"discard_ratio": ratio}, rf"discard_ratio must be a number in \[0, 1\), got {ratio!r}")
        for ratio in BAD_RATIOS
    ),
    *(
        ({"head_fusion": fusion}, f"head_fusion must be one of .*max.* got {escape(repr(fusion))}")
        for fusion in BAD_FUSIONS
    ),
]


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


def vit_with_a_sink(
    patch: tuple[int, int] = (2, 4), *, block: int = 0, head: int = 1, depth: int = 3
) -> nn.Module:
    """`small_vit` of which one head of one block sends all its attention to one patch (row, column)
    of the 4 x 6; all other heads and blocks look at all tokens alike."""
    network = small_vit(depth=depth)
    token = 1 + patch[0] * 6 + patch[1]
    with torch.no_grad():
        for number, each in enumerate(network.blocks):
            width = each.attn.head_dim
            each.attn.qkv.weight[: 2 * 24] = 0  # no queries, no keys: uniform attention
            each.attn.qkv.bias[: 2 * 24] = 0
            each.norm1.weight.fill_(1)
            each.norm1.bias.fill_(0)
            if number == block:
                each.attn.qkv.bias[head * width] = 30  # the same query for every token ...
                each.attn.qkv.weight[24 + head * width, 0] = 1  # ... and the key is channel 0
        network.pos_embed[:, token, 0] = 60
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
    """All that a call could leave changed: modes, switches, hooks, weights, gradients."""
    modules = [
        {name: _brief(value) for name, value in vars(module).items()}
        for module in network.modules()
    ]
    weights = [
        (p.requires_grad, None if p.grad is None else p.grad.sum().item(), _version(p))
        for p in network.parameters()
    ]
    return [modules, weights, [buffer.float().sum().item() for buffer in network.buffers()]]


def _brief(value: object) -> object:
    """Switches such as `training` and `fused_attn` as they are; of hooks, how many."""
    if isinstance(value, dict):
        return len(value)
    return value if isinstance(value, bool) else None


def run_unfused(
    network: nn.Module, modules: Iterable[nn.Module], images: Tensor
) -> tuple[list[Tensor], Tensor]:
    """What the modules return with fused kernels off, in the order of their calls; the logits."""
    kept: list[Tensor] = []
    fused = [module for module in network.modules() if vars(module).get("fused_attn")]
    hooks = [
        module.register_forward_hook(lambda *call: kept.append(call[-1])) for module in modules
    ]
    for module in fused:
        module.fused_attn = False
    logits = network(images)
    for module in fused:
        module.fused_attn = True
    for hook in hooks:
        hook.remove()
    return kept, logits


def fill_cache(cache: Path, repository: str, network: nn.Module) -> None:
    """What a download of the network's weights leaves in the cache of the hub."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    save_file(network.state_dict(), snapshot / "model.safetensors")


def _version(parameter: Tensor) -> int:
    """Inference tensors have none."""
    return 0 if parameter.is_inference() else parameter._version


def write_notebook(path: Path, *sources: str) -> Path:
    """A notebook with a cell for each source, the first one tagged as parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path
