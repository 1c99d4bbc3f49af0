"""`rollout models`: cards, lists by pattern, and what cannot be shown."""

import re

import pytest

from rollout.cli import main as cli


def test_the_card_of_a_model_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "demo", "vit_base_patch16_siglip_224"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("demo\n") and "\nvit_base_patch16_siglip_224\n" in printed
    assert "14 x 14 (rows x columns)" in printed and "attention layer" in printed


def test_models_are_listed_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--pattern", "vit_*dinov2*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and lines[-1] == "8 of 8 can be explained"
    assert lines[0].startswith("vit_base_patch14_dinov2: grid 37 x 37, 1 prefix tokens, ")
    assert cli.main(["models", "--pattern", "swin_tiny*", "--refused"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("swin_tiny_patch4_window7_224: refused, windows of 49 tokens")
    assert lines[-1] == "0 of 1 can be explained"


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["swin_tiny_patch4_window7_224"], "swin_tiny_.*: SwinTransformer cannot be rolled", 1),
        (["vit_tyni"], "timm knows no architecture 'vit_tyni'", 2),
        (["--pattern", "x*y"], "no architecture of timm fits 'x\\*y'", 2),
        (["demo", "--refused"], "give names or a pattern, not both", 2),
    ],
)
def test_models_that_cannot_be_shown(
    arguments: list[str], message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", *arguments]) == code
    assert re.search(f"rollout: error: {message}", capsys.readouterr().err)
