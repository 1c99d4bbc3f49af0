"""What cannot be done in the explorer is a sentence, and changes nothing."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explorers import SCENE, WIDE, problem
from helpers import small_vit
from PIL import Image

from rollout import explore, wrap_model
from rollout.demo.samples import sample_path
from rollout.settings import METHODS, Settings


def upload(explorer, name, content, slices=1):
    """What the browser sends of a file."""
    size = -(-len(content) // slices)
    for index in range(slices):
        message = {"name": name, "index": index, "total": slices}
        part = memoryview(content)[index * size : (index + 1) * size]
        explorer.controls.upload._handle_custom_msg(message, [part])


def test_what_cannot_be_done_is_a_sentence_and_changes_nothing(explorer):
    controls, view, maps = explorer.controls, explorer.view, explorer.canvas.maps
    mistakes = [
        (controls.model, "no_such_network", "unknown model"),
        (controls.model, "swin_tiny_patch4_window7_224", ""),
        ("notes.txt", b"no image", "notes.txt is not an image"),
        ("cut.png", sample_path(SCENE).read_bytes()[:900], "cut.png"),
    ]
    for what, value, words in mistakes:
        if isinstance(what, str):
            upload(explorer, what, value)
        else:
            what.value = value
        assert problem(explorer) and words in explorer.status.value, what
        assert (explorer.view, explorer.canvas.maps) == (view, maps)
        assert (controls.model.value, controls.image.value) == ("demo", SCENE)
    controls.discard_ratio.value = 0.5
    assert not problem(explorer) and explorer.view.settings.discard_ratio == 0.5


def test_a_method_that_cannot_be_done_is_a_sentence(explorer, small, tmp_path):
    explorer.controls.head_fusion.value = "max"
    explorer.controls.legacy.value = True
    assert "knows only head_fusion" in explorer.status.value
    assert "untick the arithmetic" in explorer.status.value
    assert not explorer.controls.legacy.value and not explorer.view.settings.legacy
    wide = explore(small, WIDE, output_folder=tmp_path)
    wide.controls.legacy.value = True
    assert "square patch grid" in wide.status.value and not wide.view.settings.legacy
    wide.close()


def test_weights_out_of_reach_are_a_sentence(explorer):
    explorer.controls.model.value = "vit_tiny_patch16_224"
    assert problem(explorer) and explorer.controls.model.value == "demo"


PICTURES = {
    "one.png": ("RGB", (1, 1), {}),
    "tall.jpg": ("L", (30, 700), {}),
    "sixteen.tif": ("I;16", (50, 40), {}),
    "print.tif": ("CMYK", (64, 20), {}),
    "drawing.png": ("RGBA", (300, 200), {}),
    "few.gif": ("P", (33, 44), {}),
    "bits.bmp": ("1", (17, 19), {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_any_picture_can_be_uploaded(explorer, name):
    mode, size, options = PICTURES[name]
    stream = io.BytesIO()
    kind = Image.registered_extensions()[Path(name).suffix]
    Image.new(mode, size).save(stream, kind, **options)
    upload(explorer, f"../{name}", stream.getvalue(), slices=3)
    assert not problem(explorer), explorer.status.value
    path = explorer.output_folder / "uploads" / name
    assert explorer.view.image == str(path) and path.read_bytes() == stream.getvalue()
    names: dict = {}
    exec(explorer.code, {"model": explorer.session.model}, names)
    found = explorer.session.relevance("gradient_rollout", explorer.view.target, Settings())
    np.testing.assert_allclose(names["explanation"].map[0].numpy(), found, rtol=1e-6)


def test_a_transfer_that_broke_off_does_not_spoil_the_next(explorer):
    content = sample_path("photo_cat").read_bytes()
    send = explorer.controls.upload._handle_custom_msg
    send({"name": "lost.png", "index": 0, "total": 3}, [memoryview(content)[:900]])
    assert not problem(explorer) and explorer.view.image == SCENE
    upload(explorer, "mine.jpg", content, slices=2)
    assert not problem(explorer) and explorer.view.image.endswith("mine.jpg")


def test_a_network_without_a_classifier_is_offered_what_needs_none(tmp_path):
    tower = wrap_model(small_vit(num_classes=0), image_size=(32, 48), name="tower")
    made = explore(tower, SCENE, output_folder=tmp_path)
    assert (made.view.method, made.view.target) == ("attention_rollout", None)
    assert made.canvas.maps and made.controls.classes.labels == []
    offered = [name for _, name in made.controls.method.options]
    assert offered == [name for name, method in METHODS.items() if not method.gradients]
    made.controls.reset.click()
    assert made.view.method == "attention_rollout" and not problem(made)
    made.show(replace(made.view, method="attention_rollout"))
    made.attempt(lambda: made.show(replace(made.view, method="gradient_rollout")))
    assert "has no classifier" in made.status.value and made.view.method == "attention_rollout"
    made.close()
