"""Which model and which image the explorer shows, by the names that its controls have for them."""

from collections.abc import Mapping, Set
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from rollout.capture.attention_record import Score
from rollout.demo.samples import load_masks, mask_as_seen, sample_names, sample_path
from rollout.explanations.recording import record_model
from rollout.explanations.targets import Chosen
from rollout.explorer.session import Session
from rollout.explorer.view import View, from_keywords
from rollout.files import whole_file
from rollout.maths.placement import patch_coverage, under_grid
from rollout.models.images import load_image
from rollout.models.load import load_model
from rollout.models.model import ImageSource, Model, check_model
from rollout.names import file_name

GIVEN_IMAGE = "the given image"
TARGETS = ("target", "rival")


class Sources:
    """Models and images by name; only the last model is kept in memory, and one that was given.

    Args:
        model: what was given to `explore`, or a name for `load_model`.
        image: a sample's name, a path, or an image as `explain` takes it.
        folder: where uploaded files go.
        score: what is differentiated instead of a class's logit, as for `explain`.
        score_name: what to call it.
    """

    def __init__(
        self,
        model: Model | str,
        image: ImageSource,
        folder: Path,
        score: Score | None = None,
        score_name: str = "",
    ) -> None:
        if not isinstance(model, str):
            check_model(model)
        if score_name and score is None:
            raise ValueError(
                f"the view follows a score, {score_name!r}; give it: explore(..., score=...)"
            )
        self._score = score
        self.score_name = score_name or ("the given score" if score else "")
        self._given_models = {} if isinstance(model, str) else {model.name: model}
        self.first_model = model if isinstance(model, str) else model.name
        self._given_image = None if isinstance(image, str | Path) else image
        self.first_image = str(image) if isinstance(image, str | Path) else GIVEN_IMAGE
        self.images = [*dict.fromkeys([*sample_names(), self.first_image])]
        self._folder = folder
        self._loaded: tuple[str, Model] | None = None

    def start(self, keywords: dict[str, Any]) -> tuple[Session, View]:
        """What was asked for at first: the network's run, and the view with classes as indices.

        Args:
            keywords: of `explore`.

        Raises:
            OSError, TypeError, ValueError: what makes no sense.
        """
        session = self.session(self.first_model, self.first_image)
        return session, self.view(session, self.first_model, self.first_image, keywords)

    def view(self, session: Session, model: str, image: str, keywords: Mapping[str, Any]) -> View:
        """What `explore` shows of a session with these keywords; all else by default."""
        classes = {name: keywords[name] for name in TARGETS if keywords.get(name) is not None}
        if self._score is not None and classes:
            raise ValueError("give targets or a score, not both")
        chosen = {name: _classes(session.model, one) for name, one in classes.items()}
        method = "gradient_rollout" if session.follows else "attention_rollout"
        given = {"method": method, "target": session.predicted, **keywords, **chosen}
        given["score_name"] = self.score_name
        return from_keywords(image, model, self.given(model, image), given)

    def session(self, model: str, image: str) -> Session:
        """Run the network once.

        Raises:
            OSError, ValueError: no such model or image, or one that cannot be explained.
        """
        return open_session(self._model(model), *self._image(image), score=self._score)

    def given(self, model: str, image: str) -> frozenset[str]:
        """What code cannot name: see `View.given`."""
        names = {"model"} if model in self._given_models else set()
        names |= {"score"} if self._score is not None else set()
        return frozenset(names | ({"image"} if image == GIVEN_IMAGE else set()))

    def add_upload(self, name: str, content: bytes) -> str:
        """Keep an uploaded file; returns its name as an image.

        Raises:
            ValueError: it is no image.
        """
        path = self._free(Path(name.replace("\\", "/")).name, content)
        with whole_file(path) as partial:
            partial.write_bytes(content)
            try:
                load_image(partial)
            except ValueError as error:
                raise ValueError(str(error).replace(str(partial), name)) from error
        if str(path) not in self.images:
            self.images.append(str(path))
        return str(path)

    def _free(self, name: str, content: bytes) -> Path:
        """Where an upload goes: never over another image of that name."""
        folder, stem, end = self._folder / "uploads", file_name(Path(name).stem), Path(name).suffix
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        paths = (folder / f"{name}{end}" for name in numbered)
        return next(p for p in paths if not p.exists() or p.read_bytes() == content)

    def _model(self, name: str) -> Model:
        if name in self._given_models:
            return self._given_models[name]
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = name, load_model(name)
        return self._loaded[1]

    def _image(self, name: str) -> tuple[ImageSource, dict]:
        """The image and its answer key."""
        if name == GIVEN_IMAGE:
            assert self._given_image is not None
            return self._given_image, {}
        path = sample_path(name)
        return path, load_masks(path) if name in sample_names() else {}


def _classes(model: Model, target: Any) -> Chosen:
    """An index or label as an index; several, in a set or as JSON has them, as a set of these."""
    if isinstance(target, Set | list):
        several = frozenset(model.class_index(one) for one in target)
        return min(several) if len(several) == 1 else several
    return model.class_index(target)


def open_session(
    model: Model,
    image: ImageSource,
    masks: Mapping[str, np.ndarray] | None = None,
    *,
    score: Score | None = None,
) -> Session:
    """Run the model once on one image.

    Args:
        masks: the answer key, label to (height, width) of bool on the image as it was given.
        score: what is differentiated instead of a class's logit, as for `explain`.
    """
    recording = record_model(model, image, score=score)
    if len(recording.images) != 1:
        raise ValueError(f"the explorer shows one image, got {len(recording.images)}")
    grid_size, extent = recording.layout.grid_size, recording.layout.extent
    seen = {label: mask_as_seen(model, mask) for label, mask in (masks or {}).items()}
    coverage = {
        label: patch_coverage(under_grid(mask, extent), grid_size)[0]
        for label, mask in seen.items()
    }
    return Session(recording, coverage=coverage)
