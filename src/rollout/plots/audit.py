"""The picture of an audit: which patches draw most attention, and how much in each block."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rollout.maths.token_layout import Extent
from rollout.plots.figure import new_figure
from rollout.plots.maps import plot_picture
from rollout.plots.marks import mark_patch


def plot_audit(
    pictures: np.ndarray,
    grid_size: tuple[int, int],
    patches: np.ndarray,
    shares: np.ndarray,
    heads: Sequence[Sequence[np.ndarray]],
    uniform: float,
    extent: Extent | None = None,
) -> Figure:
    """A row for each image: the patches outlined with their blocks, and the share by block.

    Args:
        pictures: (batch, height, width, 3) in [0, 1].
        grid_size: (rows, columns) of patches.
        patches: (batch, blocks, 2).
        shares: (batch, blocks).
        heads: for each image and block the share in each head.
        uniform: the share that each token would have if all had the same.
        extent: the pixels that the patches cover, as `Explanation.extent`; None is all of them.
    """
    figure, axes = new_figure(len(pictures), 2, width=7.6, height=3.3 * len(pictures))
    for (left, right), picture, places, drawn, by_head in zip(
        axes, pictures, patches, shares, heads, strict=True
    ):
        plot_picture(0.25 + 0.6 * picture, ax=left, title="most attention, by block")
        for patch, words in _by_patch(places).items():
            mark_patch(left, patch, grid_size, picture.shape[:2], words=words, extent=extent)
        plot_shares(drawn, by_head, uniform, ax=right)
    return figure


def plot_shares(
    shares: np.ndarray, heads: Sequence[np.ndarray], uniform: float, *, ax: Axes
) -> Axes:
    """What the patch draws in each block: a bar for the mean of the heads, a dot for each head."""
    blocks = np.arange(1, len(shares) + 1)
    ax.bar(blocks, shares, color="#d55e00", label="mean of the heads")
    for block, by_head in zip(blocks, heads, strict=True):
        label = "one head" if block == 1 else None
        ax.plot(np.full(len(by_head), block), by_head, "o", color="0.25", ms=2.5, label=label)
    ax.axhline(uniform, color="#0072b2", linestyle="--", label=f"uniform: {uniform:.2%}")
    ax.set(xlabel="block", ylabel="share of the attention", title="that patch's share")
    ax.title.set_fontsize("medium")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.legend(frameon=False, fontsize="small")
    return ax


def _by_patch(places: np.ndarray) -> dict[tuple[int, int], str]:
    """Each patch once, with its blocks, such as "1, 3 to 5"."""
    blocks: dict[tuple[int, int], list[int]] = {}
    for block, (row, column) in enumerate(places.tolist(), start=1):
        blocks.setdefault((row, column), []).append(block)
    return {patch: _spans(numbers) for patch, numbers in blocks.items()}


def _spans(numbers: Sequence[int]) -> str:
    """Numbers in rising order, neighbours drawn together: [1, 3, 4, 5] -> "1, 3 to 5"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(
        f"{first}" if first == last else f"{first}{', ' if last == first + 1 else ' to '}{last}"
        for first, last in spans
    )
