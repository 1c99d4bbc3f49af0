"""Take a view away: the picture as PNG and PDF, the settings as JSON."""

import json
import re
from itertools import count
from pathlib import Path

from matplotlib.figure import Figure

from rollout.explorer.view import View, as_keywords
from rollout.files import whole_file

KINDS = (".png", ".pdf", ".json")


def save_view(figure: Figure, view: View, label: str, folder: Path) -> list[Path]:
    """Write picture and settings; only the same view saved again is overwritten.

    Args:
        label: the target's, for the name.

    Returns:
        The files: PNG, PDF, JSON.
    """
    parts = [Path(view.image).stem, view.method, label]
    stem = "_".join(re.sub(r"\W+", "_", part).strip("_") for part in parts if part)
    names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    content = json.dumps(as_keywords(view), indent=2) + "\n"
    stem = next(name for name in names if _is_free(folder / name, content))
    png, pdf, settings = files = [folder / (stem + end) for end in KINDS]
    for path in (png, pdf):
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=200)
    with whole_file(settings) as partial:
        partial.write_text(content)
    return files


def _is_free(stem: Path, content: str) -> bool:
    """Whether nothing has this name, or the same settings."""
    settings = stem.with_name(stem.name + ".json")
    if settings.is_file():
        return settings.read_text() == content
    return not any(stem.with_name(stem.name + end).exists() for end in KINDS)
