"""Images of a shard as the network takes them, the next ones opened while it sees those before."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from PIL import Image
from torch import Tensor

from rollout.collection.inputs import named_package
from rollout.collection.task import Shard
from rollout.models.images import decode_image
from rollout.models.model import Model
from rollout.models.preprocess import apply_transform

# One image, not the run.
REFUSED = (OSError, ValueError, TypeError, RuntimeError, SyntaxError, MemoryError)


@dataclass(frozen=True)
class Opened:
    """An image as the network takes it, with what is known of its file.

    Attributes:
        facts: columns of the table.
        target: of its row in the inputs, a class index.
        mask: share of each pixel under its mask, (height, width).
    """

    facts: dict[str, Any]
    tensor: Tensor
    target: int | None
    mask: Tensor | None


def numbers(shard: Shard) -> range:
    return range(len(shard.images))


def known(shard: Shard, number: int) -> dict[str, Any]:
    return {"image": shard.first + number, "path": shard.images[number][0]}


def open_batches(
    model: Model, shard: Shard, size: int, readers: int
) -> Iterator[list[Opened | dict[str, Any]]]:
    """The images of a shard, some at a time; the next ones are opened meanwhile."""
    places = numbers(shard)
    parts = [places[start : start + size] for start in range(0, len(places), size)]
    with ThreadPoolExecutor(readers) as pool:

        def start(part: range) -> list[Any]:
            return [pool.submit(open_one, model, shard, number) for number in part]

        waiting = start(parts[0])
        for following in [*parts[1:], range(0)]:
            current, waiting = waiting, start(following)
            yield [one.result() for one in current]


def open_one(model: Model, shard: Shard, number: int) -> Opened | dict[str, Any]:
    """An image of a shard, or the columns of its row if it cannot be opened."""
    facts = known(shard, number)
    path, target, mask = shard.images[number]
    try:
        content = read_bytes(path)
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        image = decode_image(content, path)
        facts["width"], facts["height"] = image.size
        return Opened(
            facts,
            apply_transform(model.transform, image),
            model.class_index(target) if target else None,
            _mask(model, mask, image.size) if mask else None,
        )
    except REFUSED as error:
        return facts | {"error": sentence(error)}


def read_bytes(path: str) -> bytes:
    """What a path or an address holds.

    Raises:
        OSError: there is nothing.
        ModuleNotFoundError: a package is missing that opens such addresses: not one image's fault.
    """
    try:
        with named_package(path), fsspec.open(path, "rb") as file:
            return file.read()
    except KeyError as error:  # of an archive
        raise FileNotFoundError(f"no image file {path}") from error
    except FileNotFoundError as error:
        if "://" not in path:
            raise
        raise FileNotFoundError(f"{path} is not there, or cannot be reached") from error


def _mask(model: Model, path: str, size: tuple[int, int]) -> Tensor:
    """The mask as the network would see it: what the transform cuts off is cut off."""
    bright = np.asarray(decode_image(read_bytes(path), path).convert("L")) >= 128
    picture = Image.fromarray((255 * bright).astype(np.uint8))
    if picture.size != size:
        raise ValueError(f"the mask {path} is {picture.size}, its image {size} (width, height)")
    tensor = apply_transform(model.transform, picture.convert("RGB"))
    return model.pictures(tensor.unsqueeze(0))[0, ..., 0]


def sentence(error: Exception) -> str:
    """On one line; what the operating system said, without its number."""
    message = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        message = ": ".join(["it does not fit into memory", *map(str, error.args)])
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(message.split())
