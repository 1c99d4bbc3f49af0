"""What the explorer shows, as data: one frozen view, and its settings as JSON."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from rollout.errors import shown
from rollout.explanations.targets import Chosen
from rollout.maths.checks import check_number
from rollout.maths.scales import Scale, check_scale
from rollout.settings import DEFAULTS, Settings, check_flag, check_list, check_method

GridOrder = Literal["blocks", "entropy", "largest"]
GRID_ORDERS: tuple[GridOrder, ...] = get_args(GridOrder)
SIDE_BY_SIDE = ("raw_attention", "attention_rollout", "gradient_rollout", "generic_relevance")
LARGEST_TEXT = 2.0


@dataclass(frozen=True)
class View:
    """Everything that decides a picture of the explorer.

    Attributes:
        image: a sample's name or a path; for an image that was given as an object, what it is.
        model: its name.
        target, rival: class indices, or sets of them, of which the sum of logits is followed; the
            map is the target's, the rival is what it is compared with, None for neither.
        opacity: of the map over the image, where it is highest, in [0, 1].
        scale: where the colours end, as for `plot_overlay`: "auto", "max", "percentile", "log".
        shared_scale: whether the maps beside each other share one scale.
        grid_shared: whether all blocks and heads share one scale where they stand side by side.
        grid_order: how they stand there: "blocks" in order, or sorted by "entropy" or by the share
            of the "largest" patch, the most focused first.
        methods: those that stand side by side.
        text: size of the letters; 1 is the notebook's own.
        compare_with: another view, kept beside this one; of a single map, as is this one then.
        given: which of "model", "image" and "score" only the caller of `explore` has, and code
            cannot name.
        score_name: what is followed instead of a class; "" where classes are.
    """

    image: str
    model: str
    method: str = "gradient_rollout"
    target: Chosen | None = None
    rival: Chosen | None = None
    settings: Settings = DEFAULTS
    opacity: float = 0.8
    scale: Scale = "auto"
    shared_scale: bool = True
    grid_shared: bool = False
    grid_order: GridOrder = "blocks"
    methods: tuple[str, ...] = SIDE_BY_SIDE
    text: float = 1.0
    compare_with: "View | None" = None
    given: frozenset[str] = frozenset()
    score_name: str = ""

    def __post_init__(self) -> None:
        check_method(self.method)
        check_scale(self.scale)
        for name in ("opacity", "text"):
            check_number(name, getattr(self, name))
        for name in ("shared_scale", "grid_shared"):
            check_flag(name, getattr(self, name))
        self._check_panes()
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must be in [0, 1], got {self.opacity}")
        kept = self.compare_with
        if kept is not None and (self.rival is not None or kept.several):
            raise ValueError("two single maps are compared: use rival=None in both views")

    def _check_panes(self) -> None:
        if not isinstance(self.grid_order, str) or self.grid_order not in GRID_ORDERS:
            names = ", ".join(GRID_ORDERS)
            raise ValueError(f"grid_order must be one of {names}, got {shown(self.grid_order)}")
        if not 1 <= self.text <= LARGEST_TEXT:
            raise ValueError(f"text must be in [1, {LARGEST_TEXT:g}], got {self.text}")
        check_list("methods", self.methods)
        for method in self.methods:
            check_method(method)

    @property
    def targets(self) -> list[Chosen | None]:
        """Whose maps are shown: the target's, and the rival's where there is one."""
        return [self.target] if self.rival is None else [self.target, self.rival]

    @property
    def several(self) -> bool:
        """Whether there are more maps than the target's."""
        return self.rival is not None or self.compare_with is not None

    @property
    def source(self) -> tuple[str, str]:
        """What the network ran on: (model, image)."""
        return self.model, self.image

    def kept(self) -> "View":
        """What stands beside another view that is compared with it: the target's map alone."""
        return replace(self, rival=None, compare_with=None)

    def with_settings(self, **knobs: Any) -> "View":
        return replace(self, settings=replace(self.settings, **knobs))


def indices(target: Chosen | None) -> list[int]:
    """The classes of a target, in order."""
    if target is None:
        return []
    return sorted(target) if isinstance(target, frozenset) else [int(target)]


KNOBS = tuple(field.name for field in fields(Settings))


def as_keywords(view: View) -> dict[str, Any]:
    """The view as JSON can hold it; `explore(**keywords)` shows it again."""
    keywords = {field.name: getattr(view, field.name) for field in fields(view)}
    del keywords["given"]
    if not view.score_name:
        del keywords["score_name"]
    settings = asdict(keywords.pop("settings"))
    for name in ("target", "rival"):
        if isinstance(keywords[name], frozenset):
            keywords[name] = sorted(keywords[name])  # JSON has no sets
    kept = keywords.pop("compare_with")
    beside = {} if kept is None else {"compare_with": as_keywords(kept)}
    return keywords | settings | beside


def from_keywords(image: str, model: str, given: frozenset[str], keywords: dict[str, Any]) -> View:
    """A view from what `explore` was given; targets are class indices.

    Raises:
        TypeError: a keyword that no view has.
    """
    known = {field.name for field in fields(View)} - {"image", "model", "given", "settings"}
    unknown = sorted(set(keywords) - known - set(KNOBS))
    if unknown:
        raise TypeError(
            f"explore() got an unexpected setting {unknown[0]!r}; there are "
            f"{', '.join(sorted(known | set(KNOBS)))}"
        )
    knobs = {name: value for name, value in keywords.items() if name in KNOBS}
    if isinstance(knobs.get("query"), list):
        knobs["query"] = tuple(knobs["query"])  # JSON has lists
    if isinstance(keywords.get("methods"), list):
        keywords = {**keywords, "methods": tuple(keywords["methods"])}
    others = {name: value for name, value in keywords.items() if name in known}
    return View(image, model, settings=Settings(**knobs), given=given, **others)
