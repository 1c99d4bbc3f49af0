"""Draw the shipped scenes anew, or the sprite sheet from its font.

python tools/draw_samples.py [NotoColorEmoji.ttf]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from rollout.demo.samples import SAMPLES
from rollout.demo.scenes import (
    CLASSES,
    GLYPHS,
    SPRITE_SHEET,
    SPRITE_SIZE,
    Scene,
    draw_scene,
    sheet_cell,
)


def draw_sprite_sheet(font_file: str | Path, path: Path = SPRITE_SHEET) -> None:
    """Make the sprite sheet anew from the font Noto Color Emoji (SIL Open Font License 1.1)."""
    font = ImageFont.truetype(str(font_file), 109)  # the only size that the font holds
    columns = max(map(len, GLYPHS.values()))
    sheet = Image.new("RGBA", (columns * SPRITE_SIZE, len(GLYPHS) * SPRITE_SIZE))
    for row, glyphs in enumerate(GLYPHS.values()):
        for column, glyph in enumerate(glyphs):
            drawn = Image.new("RGBA", (136, 136))
            ImageDraw.Draw(drawn).text((0, 4), glyph, font=font, embedded_color=True)
            sheet.paste(drawn.resize((SPRITE_SIZE, SPRITE_SIZE)), sheet_cell(row, column))
    sheet.save(path, optimize=True)


# The classes of each scene and the seed that draws it; the first four show the subjects of
# vit-explain's README.
SCENE_SEEDS = {
    "cat_dog": (("cat", "dog"), 107),
    "bird_dog": (("bird", "dog"), 101),
    "airplane": (("airplane",), 103),
    "airplane_tree": (("airplane", "tree"), 102),
    "boat_fish": (("boat", "fish"), 109),
    "car_house": (("car", "house"), 104),
    "flower_fruit": (("flower", "fruit"), 110),
    "ball_cat_car": (("ball", "cat", "car"), 103),
}


def save_scene(scene: Scene, path: Path) -> None:
    """Write the image, and beside it the masks: a palette image, 0 or 1 + the class's number."""
    numbers = np.zeros(scene.image.shape[:2], np.uint8)
    for name, mask in scene.masks.items():
        numbers[mask] = 1 + CLASSES.index(name)
    key = Image.fromarray(numbers)
    key.putpalette(np.uint8(255 * colormaps["tab20"](np.arange(1 + len(CLASSES)))[:, :3]).tobytes())
    Image.fromarray(scene.image).save(path, optimize=True)
    key.save(path.with_name(f"{path.stem}_mask.png"), optimize=True)


def draw_samples(folder: Path = SAMPLES) -> None:
    """Make the shipped scenes anew."""
    for name, (classes, seed) in SCENE_SEEDS.items():
        save_scene(draw_scene(np.random.default_rng(seed), classes), folder / f"scene_{name}.png")


if __name__ == "__main__":
    draw_sprite_sheet(sys.argv[1]) if sys.argv[1:] else draw_samples()
