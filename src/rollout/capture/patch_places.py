"""Which pixels of the image each cell of a feature map comes from, followed through convolutions.

A cell of a convolution stands for `stride` pixels, centred in its kernel: cell i begins at
`(kernel - stride) / 2 - padding + i * stride`. So a grid may leave a margin of the image out, or
reach into padding, where nothing of the image is.
"""

from typing import Any

from torch import Tensor

from rollout.maths.token_layout import Extent

_Line = tuple[float, float]  # where cell 0 begins along one side, and how many pixels a cell is


class PatchPlaces:
    """Feature maps by their size, each with where its cells lie on the image.

    Attributes:
        overlap: whether neighbouring cells see pixels in common.
    """

    def __init__(self) -> None:
        self.overlap = False
        self._image: tuple[int, int] | None = None
        self._known: dict[tuple[int, int], tuple[_Line, _Line]] = {}

    def extent(self, size: tuple[int, int]) -> Extent:
        """What the map of that size (rows, columns) covers of the image."""
        (top, high), (left, wide) = self._known[size]
        return top, left, top + size[0] * high, left + size[1] * wide

    def padded(self, before: Tensor, after: Tensor, pad: Any) -> None:
        """`pad` as `torch.nn.functional.pad` takes it: left, right, top, bottom."""
        if before.dim() != 4 or len(pad) != 4:
            return
        (top, high), (left, wide) = self._lines(before)
        lines = (top - pad[2] * high, high), (left - pad[0] * wide, wide)
        self._known[_size(after)] = lines

    def convolved(self, before: Tensor, after: Tensor, kernel: Any, options: dict) -> None:
        """`kernel` (out, in, rows, columns), `options` as `torch.nn.functional.conv2d` takes it."""
        lines = self._lines(before)
        sizes = tuple(kernel.shape[2:])
        steps, spread = _pair(options.get("stride", 1)), _pair(options.get("dilation", 1))
        lengths = [d * (size - 1) + 1 for d, size in zip(spread, sizes, strict=True)]
        self.overlap |= any(length > step for length, step in zip(lengths, steps, strict=True))
        pads = _padding(options.get("padding", 0), lengths)
        row, column = (
            (begin + _offset(length, step, pad) * cell, step * cell)
            for (begin, cell), length, step, pad in zip(lines, lengths, steps, pads, strict=True)
        )
        self._known[_size(after)] = row, column

    def _lines(self, feature_map: Tensor) -> tuple[_Line, _Line]:
        """Where a map lies; one that nobody made, as of pooling, covers what the image covers."""
        size = _size(feature_map)
        self._image = self._image or size
        height, width = self._image
        whole = (0.0, height / size[0]), (0.0, width / size[1])
        return self._known.setdefault(size, whole)


def _size(feature_map: Tensor) -> tuple[int, int]:
    height, width = feature_map.shape[-2:]
    return height, width


def _offset(length: int, step: int, pad: int) -> float:
    """Where cell 0 begins, in cells before; half a cell more or less is how strides round."""
    offset = (length - step) / 2 - pad
    return offset if abs(offset) >= 1 else 0.0


def _pair(value: Any) -> tuple[int, int]:
    numbers = (value,) * 2 if isinstance(value, int) else tuple(value)
    return (numbers[0], numbers[-1])


def _padding(value: Any, lengths: list[int]) -> list[int]:
    """Cells before the first, by number or by name."""
    if isinstance(value, str):
        return [(length - 1) // 2 if value == "same" else 0 for length in lengths]
    return list(_pair(value))
