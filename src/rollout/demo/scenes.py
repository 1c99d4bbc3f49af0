"""Emoji scenes with ground-truth masks: the demo model's training data and its answer key.

A scene is a random texture with one to three objects of different classes on it, each an emoji
glyph that was scaled, mirrored and rotated. Which pixels belong to which object is known exactly.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from rollout.files import DATA, check_shipped

GLYPHS = {
    "cat": "🐱🐈😺😸😼",
    "dog": "🐶🐕🐩🦮",
    "bird": "🐦🐤🦆🦅🦉🦜",
    "fish": "🐟🐠🐡🦈",
    "airplane": "✈🛩🛫🛬",
    "car": "🚗🚙🚕🏎🚓",
    "boat": "⛵🚤🛥🚢",
    "house": "🏠🏡🏘🏚",
    "tree": "🌲🌳🌴",
    "flower": "🌹🌺🌻🌼🌷",
    "fruit": "🍎🍊🍋🍓🍒🍇",
    "ball": "⚽🏀🏈🎾🏐⚾",
}


CLASSES = tuple(GLYPHS)


SPRITE_SHEET = DATA / "sprites" / "noto_emoji.png"


SPRITE_SIZE = 128


IMAGE_SIZE = 224


Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Scene:
    """A picture and its answer key.

    Attributes:
        image: (height, width, 3) of uint8.
        masks: class name to the visible pixels of its object, (height, width) of bool.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def labels(self) -> Tensor:
        """Which of CLASSES are there, (classes,) of 0 and 1."""
        return torch.tensor([float(name in self.masks) for name in CLASSES])


def draw_scene(
    rng: np.random.Generator,
    classes: tuple[str, ...] | None = None,
    *,
    size: int = IMAGE_SIZE,
    without: Collection[str] = (),
) -> Scene:
    """Draw one scene.

    Args:
        rng: decides everything that is random; the same state gives the same scene.
        classes: what to show, different names from CLASSES; None draws one to three at random.
        size: height and width in pixels.
        without: objects to leave out; the ground and the others are what they are with them.
    """
    if classes is None:
        count = rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25])
        classes = tuple(rng.choice(CLASSES, count, replace=False).tolist())
    if len(set(classes)) != len(classes) or not set(classes) <= set(CLASSES):
        raise ValueError(f"classes must be different names out of {CLASSES}, got {classes}")
    canvas = _background(rng, size)
    masks: dict[str, np.ndarray] = {}
    boxes: list[Box] = []
    for name in classes:
        sprite = _sprite(rng, name, int(size * rng.uniform(*_sides(len(classes)))))
        box = _place(rng, sprite.size, size, boxes)
        boxes.append(box)
        if name not in without:
            mask = _paste(canvas, sprite, box)
            masks = {other: visible & ~mask for other, visible in masks.items()} | {name: mask}
    return Scene(_relight(rng, np.array(canvas.convert("RGB"))), masks)


def _sides(objects: int) -> tuple[float, float]:
    """The least and the largest side of an object, as a share of the image's."""
    if objects == 1:
        return 0.3, 0.7
    return (0.26, 0.5) if objects <= 3 else (0.2, 0.34)  # so that many find room


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Two colours blended along one axis, a texture of random coarseness, and grain."""
    cells = rng.choice([2, 4, 7, 14])
    first, last = rng.uniform(20, 235, (2, 3))
    ramp = np.linspace(0, 1, cells)[:, None, None]
    blend = first * (1 - ramp) + last * ramp  # (cells, 1, 3)
    texture = rng.normal(0, rng.uniform(5, 45), (cells, cells, 3))
    coarse = (blend if rng.random() < 0.5 else blend.transpose(1, 0, 2)) + texture
    smooth = Image.fromarray(_to_bytes(coarse)).resize((size, size), Image.Resampling.BICUBIC)
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(0, 12))
    return Image.fromarray(_to_bytes(np.asarray(smooth, np.float32) + noise)).convert("RGBA")


def _sprite(rng: np.random.Generator, name: str, size: int) -> Image.Image:
    glyphs = sprites()[name]
    sprite = glyphs[rng.integers(len(glyphs))].resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = sprite.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.getbbox())


def _place(rng: np.random.Generator, extent: tuple[int, int], size: int, boxes: list[Box]) -> Box:
    """A place with under a tenth of it or of any other object covered, if 30 tries find one."""
    width, height = extent
    for _ in range(30):
        left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        box = left, top, left + width, top + height
        if all(_overlap(box, other) < 0.1 * min(_area(box), _area(other)) for other in boxes):
            break
    return box


def _overlap(box: Box, other: Box) -> int:
    left, top = max(box[0], other[0]), max(box[1], other[1])
    right, bottom = min(box[2], other[2]), min(box[3], other[3])
    return _area((left, top, right, bottom)) if left < right and top < bottom else 0


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _paste(canvas: Image.Image, sprite: Image.Image, box: Box) -> np.ndarray:
    """Put the sprite on the canvas; return its opaque pixels as a mask of the canvas's size."""
    left, top, right, bottom = box
    canvas.alpha_composite(sprite, (left, top))
    mask = np.zeros((canvas.height, canvas.width), bool)
    mask[top:bottom, left:right] = np.asarray(sprite)[..., 3] > 128
    return mask


def _relight(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Every other image gets another brightness and contrast."""
    if rng.random() < 0.5:
        return image
    return _to_bytes(image * np.float32(rng.uniform(0.7, 1.3)) + np.float32(rng.uniform(-20, 20)))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


@cache
def sprites() -> dict[str, list[Image.Image]]:
    """The glyphs of each class, RGBA, cut from the sprite sheet (a row per class)."""
    sheet = Image.open(check_shipped(SPRITE_SHEET)).convert("RGBA")
    return {
        name: [sheet.crop(sheet_cell(row, column)) for column in range(len(glyphs))]
        for row, (name, glyphs) in enumerate(GLYPHS.items())
    }


def sheet_cell(row: int, column: int) -> tuple[int, int, int, int]:
    left, top = column * SPRITE_SIZE, row * SPRITE_SIZE
    return left, top, left + SPRITE_SIZE, top + SPRITE_SIZE


class SceneDataset(Dataset):
    """Scenes by number: item i of a seed is always the same scene, so training can stop and resume.

    An item is the image, (3, height, width) of uint8, and its labels, (classes,) of 0 and 1.
    """

    def __init__(
        self, seed: int, length: int, objects: int | tuple[int, int] | None = None
    ) -> None:
        """`objects` is how many a scene has: (4, 6) is from four to six, None one to three."""
        self.seed, self.length, self.objects = seed, length, objects

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int, without: Collection[str] = ()) -> Scene:
        """Scene `index`; or the same without some of its objects, as for `draw_scene`."""
        rng = np.random.default_rng([self.seed, index])
        if self.objects is None:
            return draw_scene(rng, without=without)
        count = self.objects
        if isinstance(count, tuple):
            count = int(rng.integers(count[0], count[1] + 1))
        classes = tuple(rng.choice(CLASSES, count, replace=False).tolist())
        return draw_scene(rng, classes, without=without)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image).permute(2, 0, 1), scene.labels
