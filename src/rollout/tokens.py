"""Where the tokens of a Vision Transformer stand, and which of them its classifier reads."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """The order of the tokens: prefix (class, distillation, registers), then patches row by row.

    Attributes:
        grid_size: (rows, columns) of the patch grid.
        num_prefix_tokens: tokens before the first patch.
        readout_tokens: output tokens whose mean the classifier reads: (0,) for a class token,
            (0, 1) for class and distillation token, all patches for average pooling.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int = 1
    readout_tokens: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if min(self.grid_size) < 1 or self.num_prefix_tokens < 0:
            raise ValueError(
                "a layout needs a grid of at least (1, 1) and no negative number of prefix tokens, "
                f"got {self.grid_size} and {self.num_prefix_tokens}"
            )
        if not self.readout_tokens or not set(self.readout_tokens) <= set(range(self.num_tokens)):
            raise ValueError(
                f"readout_tokens must be some of the tokens 0 to {self.num_tokens - 1}, "
                f"got {self.readout_tokens}"
            )

    @property
    def num_patches(self) -> int:
        rows, columns = self.grid_size
        return rows * columns

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches

    @property
    def readout(self) -> Tensor:
        """Distribution over the output tokens that the classifier reads: (tokens,), sums to 1."""
        weights = torch.zeros(self.num_tokens)
        weights[list(self.readout_tokens)] = 1 / len(self.readout_tokens)
        return weights

    def token(self, patch: tuple[int, int]) -> int:
        """The number of the token that stands for a patch (row, column)."""
        rows, columns = self.grid_size
        row, column = patch
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"the patch grid has rows 0 to {rows - 1} and columns 0 to {columns - 1}, got "
                f"patch {tuple(patch)}"
            )
        return self.num_prefix_tokens + row * columns + column

    def to_grid(self, relevance: Tensor) -> Tensor:
        """Drop the prefix and lay the patches out: (batch, tokens) -> (batch, rows, columns)."""
        if relevance.dim() != 2 or relevance.shape[1] != self.num_tokens:
            raise ValueError(
                f"relevance must have shape (batch, {self.num_tokens}): {self.num_prefix_tokens} "
                f"prefix tokens and a grid of {self.grid_size}; got {tuple(relevance.shape)}"
            )
        return relevance[:, self.num_prefix_tokens :].unflatten(1, self.grid_size)
