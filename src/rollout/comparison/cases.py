"""Some images with their targets and masks, as every family of measures takes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rollout.maths.placement import patch_coverage, under_grid
from rollout.maths.token_layout import Extent


@dataclass(frozen=True)
class Cases:
    """Some images, each with its targets: T is the most that one of them has.

    Attributes:
        names: of the images, for the table.
        seeds: a number for each image, for controls that are random.
        images: what the network takes, (batch, channels, height, width).
        targets: class indices, (T, batch); an image with fewer repeats its first.
        given: whether a target is the image's own and not such a repetition, (T, batch) of bool.
        masks: of each target, as the network sees it, (T, batch, height, width) in [0, 1].
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Tensor
    targets: Tensor
    given: Tensor
    masks: Tensor

    def coverages(self, grid_size: tuple[int, int], extent: Extent | None = None) -> Tensor:
        """Share of each patch under each target's mask: (T, batch, rows, columns)."""
        masks = self.masks > 0.5
        return torch.stack([patch_coverage(under_grid(one, extent), grid_size) for one in masks])

    def rivals(self, coverages: Tensor, which: int) -> Tensor:
        """What the other targets of each image cover, (batch, rows, columns); 0 without others."""
        others = [other for other in range(len(coverages)) if other != which]
        rival = torch.zeros_like(coverages[0])
        for other in others:
            real = self.given[other] & (self.targets[other] != self.targets[which])
            rival = rival.maximum(coverages[other] * real[:, None, None])
        return rival

    def absent(self, num_classes: int) -> Tensor:
        """A class that is none of the image's targets, (batch,): the next one by number.

        Raises:
            ValueError: every class is a target.
        """
        found = []
        for own in self.targets.T.tolist():
            free = [(own[0] + step) % num_classes for step in range(1, num_classes)]
            free = [one for one in free if one not in own]
            if not free:
                raise ValueError("an image has every class as a target; there is no absent one")
            found.append(free[0])
        return torch.tensor(found)


def stack_cases(
    names: Sequence[str],
    seeds: Sequence[int],
    images: Tensor,
    rows: Sequence[Sequence[tuple[int, Tensor]]],
) -> Cases:
    """Cases of images with (class index, mask) for each of their targets."""
    most = max(map(len, rows))
    padded = [[*row, *[row[0]] * (most - len(row))] for row in rows]
    return Cases(
        tuple(names),
        tuple(seeds),
        images,
        torch.tensor([[row[which][0] for row in padded] for which in range(most)]),
        torch.tensor([[which < len(row) for row in rows] for which in range(most)]),
        torch.stack([torch.stack([row[which][1] for row in padded]) for which in range(most)]),
    )
