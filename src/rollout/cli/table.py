"""The table of predictions that a run leaves on request: a row per image."""

from pathlib import Path
from typing import Any

import pandas as pd

from rollout.cli.inputs import class_numbers
from rollout.explanations.explanation import Explanation
from rollout.files import as_path, whole_file
from rollout.models.model import Model


class Table:
    """Rows as they come; written whole at the end, and also when something stops the run.

    Args:
        path: of a CSV file; None keeps nothing.
        keep: whether rows of an earlier run stay, except those of images that come again.
    """

    def __init__(self, path: Path | None, *, keep: bool) -> None:
        self.path = None if path is None else as_path(path)
        self._rows: list[dict[str, Any]] = []
        self._earlier = pd.DataFrame()
        if self.path is not None and keep and self.path.is_file():
            self._earlier = pd.read_csv(self.path, keep_default_na=False)

    def add(
        self, model: Model, image: Path, explanation: Explanation, files: dict[str, Path]
    ) -> None:
        settings = explanation.settings
        self._rows.append(
            {
                "image": str(image),
                "model": model.name,
                **_predicted(model, explanation),
                "method": explanation.method,
                "head_fusion": settings.head_fusion,
                "discard_ratio": settings.discard_ratio,
                "backward": settings.backward,
                **_target(explanation),
                **{kind: str(path) for kind, path in files.items()},
            }
        )

    def write(self) -> None:
        """Nothing where there is no row: an earlier table stays what it was."""
        if self.path is None or not self._rows:
            return
        table = pd.concat([self._earlier, pd.DataFrame(self._rows)], ignore_index=True)
        table = table.drop_duplicates("image", keep="last")
        with whole_file(self.path) as partial:
            table.to_csv(partial, index=False)
        print(f"{self.path}: a row for each of {len(table)} images", flush=True)


def _predicted(model: Model, explanation: Explanation) -> dict[str, Any]:
    """The class of the highest logit; nothing for a network without a classifier."""
    if not model.num_classes:
        return {}
    logits = explanation.logits
    index = int(logits[0].argmax())
    probability = float(model.probabilities(logits)[0, index])
    return {
        "predicted": index,
        "predicted_label": model.label(index),
        "predicted_probability": round(probability, 6),
    }


def _target(explanation: Explanation) -> dict[str, Any]:
    if explanation.target is None or explanation.labels is None or explanation.probability is None:
        return {}
    return {
        "target": class_numbers(explanation.target[0]),
        "label": explanation.labels[0],
        "probability": round(explanation.probability[0].item(), 6),
    }
