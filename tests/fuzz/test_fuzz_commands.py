"""Command lines of any words: each ends with an exit code and at most one line on stderr."""

import contextlib
import io
import random
from pathlib import Path

import numpy as np
import pytest
import timm
from hostile import NASTY_TEXTS
from PIL import Image
from safetensors.torch import save_file

from rollout.cli import main as cli
from rollout.models import load

SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 3, "img_size": 32, "num_classes": 3}
ENDS = (0, 1, 2)  # done, failure, wrong usage

FLAGS = {
    "explain": [
        ("--image_path", "a.png"),
        ("--model", "vit_tiny_patch16_224"),
        ("--checkpoint", "w.safetensors"),
        ("--weights", "raw"),
        ("--image-size", "32x48"),
        ("--labels", "a,b,c"),
        ("--device", "cpu"),
        ("--out", "pictures"),
        ("--method", "attention_rollout"),
        ("--target", "1"),
        ("--category_index", "1"),
        ("--head_fusion", "mean"),
        ("--discard_ratio", "0.5"),
        ("--start_block", "0"),
        ("--table", "t.csv"),
        ("--keep-going", None),
        ("--skip-existing", None),
        ("--maps", None),
        ("--audit", None),
    ],
    "gallery": [
        ("--out", "a.html"),
        ("--sort", "entropy"),
        ("--descending", None),
        ("--most", "3"),
    ],
    "boxes": [("--out", "a.json"), ("--threshold", "0.5")],
    "models": [("--pattern", "cait_xxs*"), ("--refused", None)],
    "notebooks": [("--out", "runs"), ("-p", "target"), ("--grid", "target=1,2")],
    "collect": [
        ("--out", "maps"),
        ("--checkpoint", "w.safetensors"),
        ("--method", "attention_rollout"),
        ("--target", "dog,1"),
        ("--head-fusion", "mean"),
        ("--discard-ratio", "0.5,0.6"),
        ("--shard-size", "2"),
        ("--batch-size", "2"),
        ("--workers", "0"),
    ],
}
PLACES = {
    "explain": ["a.png", "b.png", "photos", "scene_cat_dog", "missing.png"],
    "gallery": ["maps", "photos"],
    "boxes": ["maps", "photos"],
    "models": [],
    "notebooks": ["a.png", "missing.ipynb", "photos", "broken.ipynb"],
    "collect": ["missing.png", "no/such/*.png", "broken.csv"],
}


@pytest.fixture(autouse=True)
def here(elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, weights and broken files, and a small model in the place of the demo."""
    network = timm.create_model("vit_tiny_patch16_224", **SMALL)
    monkeypatch.setattr(load, "load_demo", lambda path=None: (network, ("cat", "dog", "bird")))
    save_file(network.state_dict(), "w.safetensors")
    Path("photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    for name in ("a.png", "b.png", "photos/c.png"):
        Image.fromarray(noise).save(name)
    for name in ("broken.ipynb", "broken.csv", "photos/d.png"):
        Path(name).write_text("no such thing")


def words(rng: random.Random, command: str) -> list[str]:
    """A command line that is nearly right."""
    line = [command]
    for flag, value in rng.sample(FLAGS[command], rng.randrange(min(5, len(FLAGS[command])) + 1)):
        line.append(flag)
        if value is not None or rng.random() < 0.1:
            odd = rng.random() < 0.3
            line.append(rng.choice(NASTY_TEXTS) if odd or value is None else value)
    for _ in range(rng.choice([0, 1, 1, 2])):
        odd = rng.random() < 0.2 or not PLACES[command]
        line.insert(
            rng.randrange(1, len(line) + 1),
            rng.choice(NASTY_TEXTS) if odd else rng.choice(PLACES[command]),
        )
    return line


def run(line: list[str]) -> None:
    said, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaints):
        try:
            code = cli.main(line)
        except SystemExit as ended:  # argparse
            code = ended.code
    lines = complaints.getvalue().splitlines()
    errors = [one for one in lines if "rollout: error:" in one or one.startswith("usage")]
    assert code in ENDS, (code, lines)
    assert "Traceback" not in complaints.getvalue(), lines
    assert "please report it" not in complaints.getvalue(), lines  # the last resort
    assert code == 0 or errors or "failed" in complaints.getvalue() + said.getvalue(), (code, lines)


@pytest.mark.parametrize("command", FLAGS)
def test_command_lines(fuzz, command):
    area = fuzz("command lines", 25 if command in ("models", "collect") else 60)
    for _ in range(area.cases):
        line = words(area.rng, command)
        if command in ("collect", "notebooks", "explain") and {"/", "..", "~", "../../up"} & {
            *line
        }:
            continue  # all images that lie there
        if any("\0" in word for word in line):
            continue  # no shell can say it
        if command == "models" and len(line) == 1:
            continue  # all of timm, which is right, and long
        area.attempt(lambda: run(line), repr(line), refusable=False)  # noqa: B023


def test_what_the_shell_cannot_say_ends_in_words_too(fuzz):
    area = fuzz("command lines", 10)
    for command in FLAGS:
        for text in ("\0", "a\0b", "\ud800"):
            line = [command, text, "--out", text]
            area.attempt(lambda: run(line), repr(line), refusable=False)  # noqa: B023
