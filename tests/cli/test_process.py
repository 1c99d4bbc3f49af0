"""The command as a process: it starts quickly, and needs no display."""

import os
import subprocess
import sys
from pathlib import Path

from rollout.cli import main as cli


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **environment},
    )


def test_help_needs_nothing_heavy_and_shows_an_example() -> None:
    script = (
        "import sys, rollout.cli.main\n"
        "try: rollout.cli.main.main(['explain', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'matplotlib', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = process("-c", script)
    assert result.stdout.endswith("[]\n") and result.stderr == ""
    assert "rollout explain both.png --target dog" in result.stdout
    for name in ("image_path", "head_fusion", "discard_ratio", "category_index", "use_cuda"):
        assert f"--{name}" in result.stdout and f"--{name.replace('_', '-')}" in result.stdout


def test_as_a_module_without_a_display(image: Path) -> None:
    result = process("-m", "rollout", "explain", "missing.png", DISPLAY="", MPLBACKEND="")
    assert result.returncode == 1
    assert result.stderr == "rollout: error: no image file missing.png\n"
