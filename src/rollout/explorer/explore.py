"""The two ways in: `explore` opens the explorer, `snapshot` draws what it would show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.explorer import open_widgets
from rollout.explorer.events import Events
from rollout.explorer.explorer import Explorer
from rollout.explorer.figure import plot_frame
from rollout.explorer.frame import grid_frame, main_frame
from rollout.explorer.sources import Sources
from rollout.models.model import ImageSource, Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def snapshot(
    model: Model | str, image: ImageSource, *, grid: bool = False, **view: Any
) -> "Figure":
    """What `explore` shows, as a figure: for papers, and for notebooks that are read, not run.

    Args:
        model, image, view: as for `explore`.
        grid: the blocks and heads instead of the map.
    """
    session, shown = Sources(model, image, Path()).start(view)
    frame = grid_frame(session, shown) if grid else main_frame(session, shown)
    return plot_frame(frame, session.picture())


def explore(
    model: Model | str = "demo",
    image: ImageSource = "scene_cat_dog",
    *,
    output_folder: str | Path = "runs/explorer",
    **view: Any,
) -> Explorer:
    """An application to look at one image through one model, with every knob at hand.

    Args:
        model: from `load_model` or `wrap_model`, or a name for `load_model`.
        image: a sample's name, or one image as for `explain`.
        output_folder: for what is saved and uploaded.
        view: what to start with: method, target, rival (what to compare with: index or label),
            head_fusion, discard_ratio, start_block, end_block, head, query, legacy, as for
            `explain`, opacity and shared_scale. The JSON that the explorer saves holds all of them:
            `explore(**settings)` shows that view again.

    Returns:
        A widget; as the last value of a cell it is displayed. Running the cell again closes it.
    """
    sources = Sources(model, image, Path(output_folder))
    session, start = sources.start(view)
    main_frame(session, start)  # raises what makes no sense, before there is a widget
    explorer = Explorer(sources, session, start, Path(output_folder))
    Events(explorer)
    open_widgets.remember(explorer)
    return explorer
