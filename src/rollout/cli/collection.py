"""The commands for many images: collect, gallery, boxes. Parsing and printing only."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.cli import ending
from rollout.cli.values import check_backward_of, count, ratios, whole_number, words
from rollout.settings import BACKWARDS, HEAD_FUSIONS, METHODS

if TYPE_CHECKING:
    from rollout.collection.shards import Collected

_EPILOG = """\
examples:
  rollout collect photos/ --out maps
  rollout collect slides.csv --model vit_small_patch16_224 --target predicted,"*cat*" --out maps
  rollout collect 's3://bucket/frames/*.jpg' --out s3://bucket/maps --scheduler tcp://10.0.0.1:8786

The table is read by pandas.read_parquet("maps"): a row for each map, and one with an error for each
image that is broken. The same command again does only what is missing. Exit code: 0 done, 1 failure
or no image could be explained, 2 wrong usage, 130 interrupted.
"""


def add_commands(commands: Any) -> None:
    """Add the three to the command line."""
    _add_collect(commands)
    _add_gallery(commands)
    _add_boxes(commands)


def _add_collect(commands: Any) -> None:
    collect = commands.add_parser(
        "collect",
        help="explain a whole collection of images into one table",
        description="Explain all images of folders, globs, tables and addresses, on all cores or "
        "GPUs, into one Parquet table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    collect.set_defaults(run=_collect)
    add = collect.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, folder, glob, .csv, .parquet, address")
    add("--out", required=True, metavar="FOLDER", help="where the table goes; a folder or address")
    add("--model", default="demo", help='"demo" (bundled, the default) or a name of timm')
    add("--checkpoint", type=Path, metavar="FILE", help="local weights for --model")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:0, ... (default: auto)")
    _add_maps(collect)
    _add_engine(collect)


def _add_maps(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--method", type=words, metavar="METHODS", help=f"by commas: {', '.join(METHODS)}")
    add(
        "--target",
        type=words,
        metavar="CLASSES",
        help='by commas: indices, labels, patterns like "*cat*", predicted, given (that of the '
        "table, the default where it has one)",
    )
    fusions = ", ".join(HEAD_FUSIONS)
    add("--head-fusion", type=words, default=["max"], metavar="FUSIONS", help=f"{fusions} (max)")
    add("--discard-ratio", type=ratios, default=[0.9], metavar="RATIOS", help="in [0, 1) (0.9)")
    add("--backward", choices=BACKWARDS, default="plain", metavar="RULES", help="plain or libra")
    add("--overlays", action="store_true", help="write a picture of each map too")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Arguments of `rollout notebooks` that run every combination of parameters."""
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="run every combination of values, several at once, with an index.csv",
    )
    _add_workers(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shard-size", type=count, default=1000, metavar="N", help="images a file (1000)")
    add("--batch-size", type=count, default=32, metavar="N", help="images a forward pass (32)")
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=whole_number,
        metavar="N",
        help="processes; 0 is none but this one (default: one a GPU, else one a core)",
    )
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster, tcp://HOST:PORT")


def _add_gallery(commands: Any) -> None:
    gallery = commands.add_parser(
        "gallery",
        help="a collection as one page to look at or to mail",
        description="Write one HTML file with thumbnails, maps and a sortable table of a "
        "collection; it needs no server and asks for nothing from outside.",
        allow_abbrev=False,
    )
    gallery.set_defaults(run=_gallery)
    add = gallery.add_argument
    add("folder", metavar="FOLDER", help="what `rollout collect` wrote")
    add("--out", type=Path, required=True, metavar="FILE", help="the page, such as gallery.html")
    add("--sort", default="entropy", metavar="COLUMN", help="smallest first (entropy)")
    add("--descending", action="store_true", help="largest first")
    add("--most", type=count, default=300, metavar="N", help="rows on the page (300)")


def _add_boxes(commands: Any) -> None:
    boxes = commands.add_parser(
        "boxes",
        help="boxes and masks of a collection as JSON in COCO's form",
        description="Write a box and a mask around each piece of each map that lies above the "
        "map's mean plus --threshold standard deviations.",
        allow_abbrev=False,
    )
    boxes.set_defaults(run=_boxes)
    add = boxes.add_argument
    add("folder", metavar="FOLDER", help="what `rollout collect` wrote")
    add("--out", type=Path, required=True, metavar="FILE", help="such as boxes.json")
    add("--threshold", type=float, default=0.0, metavar="K", help="standard deviations (0)")


def _collect(arguments: argparse.Namespace) -> int:
    if arguments.checkpoint is not None and arguments.model == "demo":
        raise argparse.ArgumentError(None, "--checkpoint needs --model, its architecture's name")
    check_backward_of(arguments.backward, arguments.method or [])
    started = time.monotonic()
    try:
        collected = _collected(arguments)
    except KeyboardInterrupt:
        message = "interrupted; what is written is whole, and the same command goes on from there"
        return ending.complain(message, ending.INTERRUPTED)
    rate = collected.done / (time.monotonic() - started)
    before = collected.images - collected.done
    print(
        f"{arguments.out}: {collected.images} images, {collected.rows} rows, {collected.errors} "
        f"with an error; {collected.done} images now ({rate:.1f} a second), {before} before"
    )
    return 1 if collected.errors == collected.images else 0


def _collected(arguments: argparse.Namespace) -> "Collected":
    from rollout.collection.collect import collect

    blind = arguments.target is None and arguments.backward == "plain"
    method = "attention_rollout" if blind else "gradient_rollout"
    return collect(
        arguments.model,
        arguments.inputs,
        arguments.out,
        methods=arguments.method or [method],
        targets=arguments.target,
        head_fusions=arguments.head_fusion,
        discard_ratios=arguments.discard_ratio,
        backward=arguments.backward,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        shard_size=arguments.shard_size,
        batch=arguments.batch_size,
        overlays=arguments.overlays,
        workers=arguments.workers,
        scheduler=arguments.scheduler,
        announce=lambda line: print(line, file=sys.stderr, flush=True),
    )


def _gallery(arguments: argparse.Namespace) -> None:
    from rollout.collection.gallery import write_gallery

    shown, rows = write_gallery(
        arguments.folder,
        arguments.out,
        sort=arguments.sort,
        descending=arguments.descending,
        most=arguments.most,
    )
    print(f"{arguments.out}: {shown} of {rows} rows")


def _boxes(arguments: argparse.Namespace) -> None:
    from rollout.collection.coco import write_coco

    images, boxes = write_coco(arguments.folder, arguments.out, threshold=arguments.threshold)
    print(f"{arguments.out}: {boxes} boxes in {images} images")
