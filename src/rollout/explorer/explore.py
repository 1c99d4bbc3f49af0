"""The two ways in: `explore` opens the explorer, `snapshot` draws what it would show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.capture.attention_record import Score
from rollout.explorer import open_widgets
from rollout.explorer.events import Events
from rollout.explorer.explorer import Explorer
from rollout.explorer.figure import plot_frame
from rollout.explorer.frame import main_frame
from rollout.explorer.grid import grid_frame
from rollout.explorer.lesson import read_lesson
from rollout.explorer.side_by_side import methods_frame
from rollout.explorer.sources import Sources
from rollout.explorer.teaching import Teaching
from rollout.models.model import ImageSource, Model
from rollout.settings import check_flag

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def snapshot(
    model: Model | str,
    image: ImageSource,
    *,
    grid: bool = False,
    side_by_side: bool = False,
    score: Score | None = None,
    score_name: str = "",
    **view: Any,
) -> "Figure":
    """What `explore` shows, as a figure: for papers, and for notebooks that are read, not run.

    Args:
        model, image, score, score_name, view: as for `explore`.
        grid: the blocks and heads instead of the map.
        side_by_side: several methods instead of the map.
    """
    check_flag("grid", grid)
    check_flag("side_by_side", side_by_side)
    if grid and side_by_side:
        raise ValueError("one picture at a time: use grid or side_by_side")
    session, shown = Sources(model, image, Path(), score, score_name).start(view)
    make = grid_frame if grid else methods_frame if side_by_side else main_frame
    return plot_frame(make(session, shown), session.picture())


def explore(
    model: Model | str = "demo",
    image: ImageSource = "scene_cat_dog",
    *,
    output_folder: str | Path = "runs/explorer",
    score: Score | None = None,
    score_name: str = "",
    lesson: str | Path | None = None,
    **view: Any,
) -> Explorer:
    """An application to look at one image through one model, with every knob at hand.

    Args:
        model: from `load_model` or `wrap_model`, or a name for `load_model`.
        image: a sample's name, or one image as for `explain`.
        output_folder: for what is saved and uploaded.
        score: what is followed instead of a class, as for `explain`; for networks without a
            classifier, and for similarities.
        score_name: what to call it in titles.
        lesson: steps beside the picture that set everything, for a class: "five_questions", or a
            file of one's own in the form of `explorer/lessons/five_questions.toml`.
        view: what to start with: method, target, rival (what to compare with: index or label),
            head_fusion, discard_ratio, start_block, end_block, head, query, legacy, as for
            `explain`; opacity, scale ("auto", "max", "percentile" or "log") and shared_scale;
            compare_with, another view as such keywords, also with a model and an image of its own;
            grid_order ("blocks", "entropy" or "largest") and grid_shared of the blocks and heads;
            methods, which stand side by side; text, the size of the letters, 1 to 2. The JSON
            that the explorer saves holds all of them: `explore(**settings)` shows that view again.

    Returns:
        A widget; as the last value of a cell it is displayed. Running the cell again closes it.
    """
    steps = None if lesson is None else read_lesson(lesson)
    sources = Sources(model, image, Path(output_folder), score, score_name)
    session, start = sources.start(view)
    main_frame(session, start)  # raises what makes no sense, before there is a widget
    explorer = Explorer(sources, session, start, Path(output_folder))
    Events(explorer)
    if steps is not None:
        Teaching(explorer, steps)
    open_widgets.remember(explorer)
    return explorer
