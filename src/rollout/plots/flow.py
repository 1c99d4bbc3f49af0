"""Pictures of attention flow: the network of pipes, the paths through it, and the cut that binds.

Tokens stand side by side, levels on top of each other: outputs above, input tokens below. A pipe is
drawn as wide as its capacity. Functions take axes and return axes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import Tensor

from rollout.maths.flow import CUTS

# Distinguishable with every kind of colour vision (Okabe & Ito, 2008).
CUT_COLOURS = dict(zip(CUTS, ("#0072B2", "#E69F00", "#009E73"), strict=True))


SEVERED_COLOUR = "#D55E00"


PATH_COLOUR = "#222222"


PIPE_COLOUR = "#C8C8C8"


WIDEST_PIPE = 9.0  # points, for a capacity of 1


def plot_network(
    transitions: Tensor,
    *,
    ax: Axes,
    path: Sequence[int] = (),
    sink: int | None = None,
    source_side: Tensor | None = None,
    tokens: Sequence[str] | None = None,
    title: str = "",
) -> Axes:
    """The pipes between all tokens; on top of them one path, or one cut, with its capacities.

    Args:
        transitions: capacities, (blocks, query, key), first block first.
        path: the tokens that a path visits, output token first, (blocks + 1,) of them.
        sink: the input token to mark; the last of `path` by default.
        source_side: a cut as `Flow` holds it for one token, bool (blocks + 1, tokens), input tokens
            first. What it severs is dashed, and the readout's side of it filled.
        tokens: a short name for each token, by default its number.
    """
    blocks, num_tokens, _ = transitions.shape
    severed = np.zeros(transitions.shape, dtype=bool)
    filled = np.zeros((blocks + 1, num_tokens), dtype=bool)
    if source_side is not None:
        filled = source_side.numpy()
        severed = filled[1:, :, None] & ~filled[:-1, None, :]
    steps = set(zip(reversed(range(blocks)), path, path[1:], strict=False))
    for block, query, key in np.ndindex(transitions.shape):
        capacity = transitions[block, query, key].item()
        if capacity > 0:
            look = _look(bool(severed[block, query, key]), (block, query, key) in steps)
            # Numbers of pipes that fan out are apart at their lower ends, others at the upper.
            fans_out = (severed[block, query] & (transitions[block, query].numpy() > 0)).sum() > 1
            _draw_pipe(ax, (block, query, key), capacity, look, place=0.72 if fans_out else 0.28)
    marked = sink if sink is not None else path[-1] if path else None
    _draw_tokens(ax, filled, tokens or [str(token) for token in range(num_tokens)], marked)
    ax.set_title(title, fontsize="medium")
    return ax


def plot_cut_map(cut: np.ndarray, *, ax: Axes, title: str = "") -> Axes:
    """Which cut binds, patch by patch, in three colours; the legend counts them.

    Args:
        cut: an index into CUTS for each patch, (rows, columns).
    """
    colours = ListedColormap([CUT_COLOURS[name] for name in CUTS])
    ax.imshow(cut, cmap=colours, vmin=-0.5, vmax=len(CUTS) - 0.5, interpolation="nearest")
    ax.set_title(title, fontsize="medium")
    ax.set_xticks([])
    ax.set_yticks([])
    counts = np.bincount(cut.ravel(), minlength=len(CUTS))
    handles = [
        Patch(color=CUT_COLOURS[name], label=f"{name}: {count}")
        for name, count in zip(CUTS, counts, strict=True)
    ]
    ax.legend(
        handles=handles,
        title="binding cut: patches",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=len(CUTS),
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        handlelength=1,
        columnspacing=1,
    )
    return ax


def plot_points(
    across: np.ndarray, flow: np.ndarray, cut: np.ndarray, *, ax: Axes, label: str, title: str = ""
) -> Axes:
    """Flow against another value of each patch, coloured by the cut that binds.

    Args:
        across, flow, cut: one entry per patch, of equal shape.
        label: what `across` holds, with its unit.
    """
    for index, name in enumerate(CUTS):
        here = cut == index
        ax.scatter(across[here], flow[here], s=9, color=CUT_COLOURS[name], label=name, zorder=2)
    ax.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle="--", zorder=1)
    ax.set_xlim(0, 1.05 * max(across.max(), 1e-9))
    ax.set_ylim(0, 1.05 * max(flow.max(), 1e-9))
    ax.set_xlabel(label)
    ax.set_ylabel("maximum flow")
    ax.set_title(title, fontsize="medium")
    return ax


def plot_cut_shares(shares: np.ndarray, names: Sequence[str], *, ax: Axes, label: str) -> Axes:
    """Stacked bars: the share of tokens whose flow binds at each cut.

    Args:
        shares: (bars, len(CUTS)), rows sum to 1.
        names: what each bar stands for; `label` says what they are together.
    """
    bottom = np.zeros(len(shares))
    for name, heights in zip(CUTS, shares.T, strict=True):
        ax.bar(names, heights, bottom=bottom, color=CUT_COLOURS[name], label=name, width=0.6)
        bottom += heights
    ax.set_xlabel(label)
    ax.set_ylabel("share of patches")
    ax.set_ylim(0, 1)
    ax.legend(title="binding cut", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


def _look(severed: bool, on_path: bool) -> dict[str, Any]:
    if severed:
        return {"color": SEVERED_COLOUR, "linestyle": (0, (1.2, 0.6)), "zorder": 3}
    return {"color": PATH_COLOUR if on_path else PIPE_COLOUR, "zorder": 2 if on_path else 1}


def _draw_pipe(
    ax: Axes,
    pipe: tuple[int, int, int],
    capacity: float,
    look: dict[str, Any],
    place: float,
) -> None:
    """One pipe; unless it is background, with its capacity at `place` on the way down."""
    block, query, key = pipe
    ax.plot([query, key], [block + 1, block], linewidth=WIDEST_PIPE * capacity, **look)
    if look["color"] != PIPE_COLOUR:
        ax.text(
            query + place * (key - query),
            block + 1 - place,
            f"{capacity:.2g}",
            fontsize="small",
            ha="center",
            va="center",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": look["color"]},
        )


def _draw_tokens(ax: Axes, filled: np.ndarray, tokens: Sequence[str], sink: int | None) -> None:
    levels, num_tokens = filled.shape
    for level, token in np.ndindex(levels, num_tokens):
        dark = filled[level, token]
        is_sink = level == 0 and token == sink
        ax.scatter(
            token,
            level,
            s=330,
            color=PATH_COLOUR if dark else "white",
            edgecolor=SEVERED_COLOUR if is_sink else PATH_COLOUR,
            linewidth=2.5 if is_sink else 1,
            zorder=4,
        )
        colour = "white" if dark else "black"
        ax.text(token, level, tokens[token], color=colour, ha="center", va="center", zorder=6)
    names = ["input", *(f"after block {level}" for level in range(1, levels))]
    ax.set_yticks(range(levels), names)
    ax.set_xticks([])
    ax.set_xlim(-0.4, num_tokens - 0.6)
    ax.set_ylim(-0.3, levels - 0.7)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
