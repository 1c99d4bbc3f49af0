"""Collections: one process beside the bare network, more processes, memory, and Dask's own cost.

python benchmarks/collection.py > benchmarks/RESULTS_COLLECTION.md

--quick takes few images, to see that it runs. On a GPU ViT-B/16 in batches of 64 is measured too.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from measure import interleaved_seconds, median_ratio
from PIL import Image
from table import machine, markdown

from rollout import load_model
from rollout.collection.cluster import open_engine
from rollout.collection.folder import Folder
from rollout.collection.inputs import list_images
from rollout.collection.opening import Opened, open_one
from rollout.collection.run import Run, fill
from rollout.collection.table import in_order, to_bytes
from rollout.collection.task import PREDICTED, Shard, Task, hash_weights
from rollout.collection.work import explain_together
from rollout.models.model import Model

TARGETS = {"attention_rollout": 0.75, "gradient_rollout": 0.8, "two workers": 1.7}
BATCH, TEN_MILLION = 32, 10_000_000
HOW = """\
Photos of 320 x 240 pixels as JPEG; fusion mean, discard ratio 0.9. In one process, on one thread,
CPU seconds in interleaved rounds: "maps" is the network, the maps, all columns of the table and the
bytes of the Parquet file; "decoding" is reading, hashing, decoding and resizing. The bare pass is
the network alone on the same batches, for gradient rollout forward and backward down to the input
with frozen parameters. With several processes it is the clock, once they are warm."""


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> Shard:
    """Smooth noise, which a JPEG file holds in about as many bytes as a photo."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    images = list_images(folder)[["path", "target", "mask"]]
    return Shard(0, 0, tuple(images.itertuples(index=False, name=None)))


def bare_pass(model: Model, images: torch.Tensor, gradients: bool) -> None:
    if not gradients:
        with torch.no_grad():
            model.network(images)
        return
    leaf = images.clone().requires_grad_()
    logits = model.network(leaf)
    torch.autograd.grad(logits.amax(dim=1).sum(), leaf)


def one_process(model: Model, shard: Shard, method: str, batch: int, rounds: int) -> list[str]:
    """A row: images a second of the maps, the bare pass, their ratio, and of decoding."""
    task = Task((method,), (PREDICTED,), ("mean",), (0.9,), batch=batch)
    opened = [open_one(model, shard, number) for number in range(len(shard.images))]
    good = [one for one in opened if isinstance(one, Opened)]
    parts = [good[start : start + batch] for start in range(0, len(good), batch)]
    tensors = [model.images(torch.stack([one.tensor for one in part])) for part in parts]
    model.network.requires_grad_(False)

    def maps() -> None:
        tables = [table for part in parts for table in explain_together(model, part, task)]
        to_bytes(in_order(tables))

    def bare() -> None:
        for images in tensors:
            bare_pass(model, images, task.gradients)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def decoding() -> None:
        for number in range(len(shard.images)):
            open_one(model, shard, number)

    times = measured([maps, bare, decoding], rounds, model.device.type)
    rates = [len(good) / statistics.median(seconds) for seconds in times]
    ratio, target = median_ratio(times[1], times[0]), TARGETS[method]
    verdict = "reached" if ratio >= target else "MISSED"
    said = [f"{rate:.0f}" for rate in rates]
    return [model.name, method, said[0], said[1], f"{ratio:.2f}", f">= {target}", verdict, said[2]]


def measured(works: list[Callable[[], None]], rounds: int, device: str) -> list[list[float]]:
    """CPU seconds on a processor; on a GPU the clock, as the processor only waits."""
    if device == "cpu":
        return interleaved_seconds([lambda work=work: work for work in works], rounds)
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, seconds in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return [seconds[1:] for seconds in times]


def fill_and_weigh(shard: Shard) -> tuple[int, int]:
    """The job; returns the process and its resident bytes afterwards."""
    fill(shard)
    process = psutil.Process()
    return process.pid, process.memory_info().rss


def nothing(number: int) -> int:
    return number


def several_processes(
    model: Model, shard: Shard, workers: int, shard_size: int
) -> tuple[float, list[list[int]]]:
    """Images a second of warm workers, and the resident bytes of each after each of its shards."""
    task = Task(("attention_rollout",), (PREDICTED,), ("mean",), (0.9,), batch=BATCH)
    places = range(0, len(shard.images), shard_size)
    shards = [
        Shard(number, start, shard.images[start : start + shard_size])
        for number, start in enumerate(places)
    ]
    with tempfile.TemporaryDirectory() as out:
        folder = Folder.at(out)
        folder.begin({})
        run = Run(model, {}, hash_weights(model), task, folder)
        with open_engine(workers, value=run, dashboard=False) as engine:
            list(engine.run(fill, [shards[0]] * (2 * workers)))
            start = time.perf_counter()
            weights: dict[int, list[int]] = {}
            for _, result in engine.run(fill_and_weigh, shards):
                assert isinstance(result, tuple)
                weights.setdefault(result[0], []).append(result[1])
            rate = len(shard.images) / (time.perf_counter() - start)
    return rate, list(weights.values())


def growth(weights: list[list[int]]) -> float:
    """Mebibytes of the heaviest growth from the first quarter of a worker's shards to its last."""
    grown = []
    for sizes in weights:
        quarter = max(1, len(sizes) // 4)
        grown.append(statistics.median(sizes[-quarter:]) - statistics.median(sizes[:quarter]))
    return max(grown) / 2**20


def cost_of_a_shard(shards: int) -> tuple[float, float]:
    """Seconds and scheduler's bytes per empty shard, two workers."""
    with open_engine(2, dashboard=False) as engine:
        list(engine.run(nothing, range(20)))
        before, start = psutil.Process().memory_info().rss, time.perf_counter()
        for _ in engine.run(nothing, range(shards)):
            pass
        seconds = time.perf_counter() - start
        return seconds / shards, (psutil.Process().memory_info().rss - before) / shards


def ten_million(rate: float, shard_seconds: float, shard_bytes: float, row_bytes: float) -> str:
    shards = TEN_MILLION / 1000
    hours = TEN_MILLION / rate / 3600
    return f"""\
Ten million images in shards of 1000 are {shards:.0f} tasks and as many files.

- At the {rate:.0f} images a second measured above: {hours:.0f} hours of one core, in 100 processes
  {hours / 100:.1f}; at 1000 images a second of a GPU, 2.8 hours of one GPU.
- Dask: {1e3 * shard_seconds:.1f} ms a shard, {shards * shard_seconds:.0f} s in all, of the one
  process that holds the list. Its memory grows by {shard_bytes / 1024:.1f} KiB a shard,
  {shards * shard_bytes / 2**20:.0f} MiB in all; the list of images takes about 3 GB.
- On disk: {row_bytes:.0f} bytes a row, {row_bytes * TEN_MILLION / 1e9:.1f} GB for one map an image.
- What breaks first: the scheduler is busy once the workers together finish more than
  {1 / shard_seconds:.0f} shards a second, {1000 / shard_seconds:.0f} images; the store that the
  images come from, long before."""


def rows_of_one_process(folder: Path, quick: bool) -> Iterator[list[str]]:
    rounds = 1 if quick else 7
    shard = write_photos(folder, 32 if quick else 128, (320, 240))
    for name in ("demo", "deit_tiny_patch16_224"):
        model = load_model(name, device="cpu", **({} if name == "demo" else {"pretrained": False}))
        for method in ("attention_rollout", "gradient_rollout"):
            yield one_process(model, shard, method, BATCH, rounds)
    if torch.cuda.is_available():
        model = load_model("vit_base_patch16_224", pretrained=False, device="cuda")
        for method in ("attention_rollout", "gradient_rollout"):
            row = one_process(model, shard, method, 64, rounds)
            yield [f"{row[0]}, GPU", *row[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    demo = load_model("demo", device="cpu")
    print(f"# Collections\n\n{machine()}\n\n{HOW}\n\n## One process, images a second\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(rows_of_one_process(Path(folder), quick))
    head = ("model", "method", "maps", "bare pass", "ratio", "target", "verdict", "decoding")
    print(markdown(head, rows), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shard = write_photos(Path(folder), 64 if quick else 2000, (64, 64))
        one, two = (several_processes(demo, shard, n, 16 if quick else 50)[0] for n in (1, 2))
    verdict = "reached" if two / one >= TARGETS["two workers"] else "MISSED"
    print(f"\n## Processes\n\nOne worker {one:.0f} images a second, two {two:.0f}: a ratio of")
    print(f"{two / one:.2f}, to be >= {TARGETS['two workers']}: {verdict}.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shard = write_photos(Path(folder), 200 if quick else 10_000, (64, 64))
        _, weights = several_processes(demo, shard, 4, 20 if quick else 100)
    print(f"\n{len(shard.images)} small images through four workers: the heaviest growth of one is")
    print(f"{growth(weights):.1f} MiB, from {max(map(max, weights)) / 2**20:.0f} MiB at the most.")
    seconds, bytes_ = cost_of_a_shard(200 if quick else 10_000)
    print(f"\nAn empty shard costs {1e3 * seconds:.2f} ms and {bytes_:.0f} bytes here.", flush=True)
    task = Task(("attention_rollout",), (PREDICTED,), ("mean",), (0.9,))
    with tempfile.TemporaryDirectory() as folder:
        shard = write_photos(Path(folder), 32 if quick else 500, (64, 64))
        opened = [open_one(demo, shard, number) for number in range(len(shard.images))]
        good = [one for one in opened if isinstance(one, Opened)]
        row = len(to_bytes(in_order(explain_together(demo, good, task)))) / len(good)
    print(f"\n## Ten million images\n\n{ten_million(one, seconds, bytes_, row)}")


if __name__ == "__main__":
    main()
