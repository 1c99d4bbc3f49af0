"""Where the tokens of a Vision Transformer stand, and which of them its classifier reads."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rollout.errors import shown
from rollout.maths.checks import check_pair, check_size, check_tensor
from rollout.settings import is_index

Extent = tuple[float, float, float, float]  # top, left, bottom, right in pixels of the image

# What the classifier reads: the class token; the class and the distillation token; the average of
# the patches, or of all tokens; the class token beside the average of the patches; the maximum of
# the patches in each channel, or that beside their average; what an attention layer of its own
# gathers; what class-attention blocks gather in a class token that joins after the other blocks.
Pooling = Literal[
    "token", "distilled", "avg", "all", "token_avg", "max", "avgmax", "map", "class_attention"
]


POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True)
class TokenLayout:
    """The order of the tokens: prefix (class, distillation, registers), then patches row by row.

    Attributes:
        grid_size: (rows, columns) of the patch grid.
        num_prefix_tokens: tokens before the first patch.
        pooling: which output tokens the classifier reads, one of POOLINGS.
        extent: the pixels that the grid covers, where that is not the whole image: it may leave a
            margin out, or reach into padding.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int = 1
    pooling: Pooling = "token"
    extent: Extent | None = None

    def __post_init__(self) -> None:
        grid_size = check_size("grid_size", self.grid_size, "(rows, columns)")
        object.__setattr__(self, "grid_size", grid_size)
        if not is_index(self.num_prefix_tokens) or self.num_prefix_tokens < 0:
            raise ValueError(
                "num_prefix_tokens must be a whole number from 0 on, got "
                f"{shown(self.num_prefix_tokens)}"
            )
        object.__setattr__(self, "num_prefix_tokens", int(self.num_prefix_tokens))
        if not isinstance(self.pooling, str) or self.pooling not in POOLINGS:
            raise ValueError(
                f"pooling must be one of {', '.join(POOLINGS)}; got {shown(self.pooling)}"
            )
        needed = {"token": 1, "token_avg": 1, "distilled": 2}.get(self.pooling, 0)
        if self.num_prefix_tokens < needed:
            raise ValueError(
                f"pooling {self.pooling!r} needs {needed} prefix tokens, "
                f"got {self.num_prefix_tokens}"
            )

    @property
    def num_patches(self) -> int:
        rows, columns = self.grid_size
        return rows * columns

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches

    @property
    def readout_tokens(self) -> tuple[int, ...]:
        """The output tokens that the classifier can read."""
        if self.pooling == "distilled":
            return 0, 1
        patches = tuple(range(self.num_prefix_tokens, self.num_tokens))
        own = {"token": (0,), "token_avg": (0, *patches), "all": tuple(range(self.num_tokens))}
        return own.get(self.pooling, patches)

    @property
    def readout(self) -> Tensor:
        """Distribution over the output tokens that the classifier reads: (tokens,), sums to 1.

        For poolings that depend on the image (max, avgmax, map, class_attention) it is the one of
        an image whose patches are all alike; see `readouts`.
        """
        weights = torch.zeros(self.num_tokens)
        weights[list(self.readout_tokens)] = 1 / len(self.readout_tokens)
        if self.pooling == "token_avg":  # two vectors side by side, each half of what is read
            weights[0], weights[self.num_prefix_tokens :] = 0.5, 0.5 / self.num_patches
        return weights

    @property
    def fits_legacy(self) -> bool:
        """Whether vit-explain could have laid it out: one class token and a square grid."""
        rows, columns = self.grid_size
        return self.num_prefix_tokens == 1 and rows == columns and self.pooling == "token"

    def token(self, patch: tuple[int, int]) -> int:
        """The number of the token that stands for a patch (row, column)."""
        row, column = check_pair("a patch", patch, "(row, column)")
        rows, columns = self.grid_size
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"the patch grid has rows 0 to {rows - 1} and columns 0 to {columns - 1}, got "
                f"patch {tuple(patch)}"
            )
        return self.num_prefix_tokens + row * columns + column

    def to_grid(self, relevance: Tensor) -> Tensor:
        """Drop the prefix and lay the patches out: (batch, tokens) -> (batch, rows, columns)."""
        check_tensor("relevance", relevance, "batch, tokens")
        if relevance.shape[1] != self.num_tokens:
            raise ValueError(
                f"relevance must have shape (batch, {self.num_tokens}): {self.num_prefix_tokens} "
                f"prefix tokens and a grid of {self.grid_size}; got {tuple(relevance.shape)}"
            )
        return relevance[:, self.num_prefix_tokens :].unflatten(1, self.grid_size)
