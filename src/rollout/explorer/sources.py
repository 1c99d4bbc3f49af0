"""Which model and which image the explorer shows, by the names that its controls have for them."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rollout.capture.attention_record import Score
from rollout.demo.samples import mask_as_seen
from rollout.errors import shown
from rollout.explanations.recording import record_model
from rollout.explanations.targets import Chosen
from rollout.explorer.named import Named
from rollout.explorer.session import Session
from rollout.explorer.view import View, as_keywords, from_keywords
from rollout.maths.placement import patch_coverage, under_grid
from rollout.models.model import ImageSource, Model

TARGETS = ("target", "rival")
# What another image, and what another model has no use for.
OF_THE_IMAGE = ("target", "query")
OF_THE_MODEL = ("start_block", "end_block", "head")


class Sources(Named):
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
        super().__init__(folder)
        if score_name and score is None:
            raise ValueError(
                f"the view follows a score, {score_name!r}; give it: explore(..., score=...)"
            )
        self._score = score
        self.score_name = score_name or ("the given score" if score else "")
        self.first_model, self.first_image = self.name_model(model), self.name_image(image)

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
        """What `explore` shows of a session with these keywords; all else by default.

        A view to compare with is recorded, and stands then beside the session.
        """
        other = keywords.get("compare_with")
        alone = {name: value for name, value in keywords.items() if name != "compare_with"}
        view = self._alone(session, model, image, alone)
        if other is None:
            session.beside = None
            return view
        beside, kept = self._kept(session, view, other)
        session.beside = None if beside is session else beside
        return replace(view, compare_with=kept)

    def _kept(
        self, session: Session, view: View, keywords: Mapping[str, Any]
    ) -> tuple[Session, View]:
        """The view to compare with, and its recording; what it does not say is as in the other."""
        if not isinstance(keywords, Mapping):
            raise TypeError(
                "compare_with must be the keywords of a view, such as "
                f"{{'method': 'legrad'}}, got {shown(keywords)}"
            )
        if any(keywords.get(name) is not None for name in ("rival", "compare_with")):
            raise ValueError("compare_with is a view of a single map: leave its rival out")
        own = dict(keywords)
        model = self.name_model(own.pop("model", None) or view.model)
        image = self.name_image(own.pop("image", None) or view.image)
        other = self.recording((model, image), [session, session.beside])
        left_out = {"model", "image", "rival", "score_name"}
        left_out |= set(OF_THE_IMAGE) if other is not session else set()
        left_out |= set(OF_THE_MODEL) if model != view.model else set()
        inherited = {name: one for name, one in as_keywords(view).items() if name not in left_out}
        return other, self._alone(other, model, image, {**inherited, **own})

    def recording(self, source: tuple[str, str], known: Iterable[Session | None]) -> Session:
        """The network's run on an image, by their names: one that is known, or a new one."""
        found = (one for one in known if one is not None and one.source == source)
        return next(found, None) or self.session(*source)

    def _alone(self, session: Session, model: str, image: str, keywords: Mapping[str, Any]) -> View:
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
        made = open_session(self.model_of(model), *self.image_of(image), score=self._score)
        made.source = model, image
        return made

    def given(self, model: str, image: str) -> frozenset[str]:
        """What code cannot name: see `View.given`."""
        names = {"model"} if model in self._given_models else set()
        names |= {"score"} if self._score is not None else set()
        return frozenset(names | ({"image"} if image in self._given_images else set()))


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
