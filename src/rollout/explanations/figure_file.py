"""README's pictures, and beside each the data behind it: every map as numbers, with what made it.

`NAME.json` describes `NAME.png`: one entry per panel, one line of text per row of its map. That is
small, can be read in a diff, and holds all that `explain` needs to compute the maps again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rollout.explanations.explanation import Explanation
from rollout.files import whole_file
from rollout.plots.figure import figure_png
from rollout.settings import DEFAULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Name = str | Mapping[str, str]
Shown = Explanation | Mapping[str, Any]  # what a panel shows; the mapping is a row of `sweep`


_DEFAULTS = asdict(DEFAULTS)


_ALWAYS_SAID = ("head_fusion", "discard_ratio")


_OF_A_ROW = ("method", "target", *_ALWAYS_SAID)


def write_figure(
    figure: "Figure", path: str | Path, panels: Mapping[str, Shown], *, model: Name, image: Name
) -> Path:
    """Save a figure as PNG.

    Args:
        path: of the picture; the data goes beside it, under the same name with .json.
        panels: title to what is shown there, one image each.
        model: a name for `load_model`, or one for each title.
        image: a name for `sample_path`, or one for each title.
    """
    with whole_file(path) as partial:
        partial.write_bytes(figure_png(figure))
    return write_data(path, panels, model=model, image=image)


def write_overlay(explanation: Explanation, path: str | Path, *, model: str, image: str) -> Path:
    """A picture in the look of vit-explain, with its data; arguments as in `write_figure`."""
    explanation.save_overlay(path)
    return write_data(path, {explanation.title(): explanation}, model=model, image=image)


def write_data(path: str | Path, panels: Mapping[str, Shown], *, model: Name, image: Name) -> Path:
    """Write the data behind a picture that is there already; arguments as in `write_figure`."""
    entries = [
        {"title": title, "model": _of(model, title), "image": _of(image, title), **_entry(shown)}
        for title, shown in panels.items()
    ]
    with whole_file(Path(path).with_suffix(".json")) as partial:
        partial.write_text(json.dumps({"panels": entries}, indent=1, default=_plain) + "\n")
    return Path(path)


def read_figure(path: str | Path) -> list[dict[str, Any]]:
    """The panels behind a picture, from its .json file.

    Returns:
        For each panel its title, the model's and the image's name, `explain`: the arguments of the
        call that computes it, and `map`: an array (rows, columns).
    """
    panels = json.loads(Path(path).with_suffix(".json").read_text())["panels"]
    return [{**panel, "map": np.loadtxt(panel["map"], ndmin=2)} for panel in panels]


def _of(name: Name, title: str) -> str:
    return name if isinstance(name, str) else name[title]


def _entry(shown: Shown) -> dict[str, Any]:
    if not isinstance(shown, Explanation):
        call = {name: shown[name] for name in _OF_A_ROW}
        call |= {"start_block": shown["start_block"]} if shown.get("start_block", 0) else {}
        call |= {"backward": shown["backward"]} if "backward" in shown else {}
        return {"explain": call, "map": _lines(shown["relevance"])}
    knobs = {
        name: value
        for name, value in asdict(shown.settings).items()
        if name in _ALWAYS_SAID or value != _DEFAULTS[name]
    }
    target: Any = None if shown.target is None else shown.target[0]
    target = sorted(target) if isinstance(target, frozenset) else target
    call = {"method": shown.method, "target": target, **knobs}
    return {"explain": call, "map": _lines(shown.map[0].numpy())}


def _plain(number: Any) -> object:
    """A table's numbers are numpy's."""
    return number.item()


def _lines(values: np.ndarray) -> list[str]:
    """Four digits are enough to see any difference, and hide those between two processors."""
    return [" ".join(f"{value:.4g}" for value in row) for row in values]
