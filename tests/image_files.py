"""Small images in files, some of them damaged."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int, broken: int = 0) -> list[Path]:
    """Noise in files 0000.png, ...; the last of every count // broken is damaged in some way."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = [folder / f"{number:04d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = random.integers(0, 256, (20 + number % 7, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        if broken and number % (count // broken) == count // broken - 1:
            damage(path, number // (count // broken))
    return paths


def damage(path: Path, kind: int) -> None:
    content = path.read_bytes()
    path.write_bytes([b"", content[:200], b"no image at all", content[100:]][kind % 4])
