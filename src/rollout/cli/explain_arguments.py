"""The arguments of `rollout explain`, and what is wrong with them together."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollout.cli.values import check_backward_of, csv, ratio, size, whole_number
from rollout.settings import BACKWARDS, HEAD_FUSIONS, METHODS

OWN = (
    "demo (bundled, the default), dinov2_small (a real model for photographs), dinov2_scenes (the "
    "same with the demo's classes)"
)

_EPILOG = """\
examples:
  rollout explain both.png
  rollout explain both.png --target dog --out pictures
  rollout explain photo.jpg --model deit_tiny_patch16_224 --category_index 243
  rollout explain *.jpg --model vit_small_patch16_224 --checkpoint mine.safetensors --target 2
  rollout explain *.jpg --checkpoint train.pth.tar --labels names.txt --image_size 384
  rollout explain photos/ --out maps --table maps/predictions.csv --keep-going --skip-existing

files, in the folder --out, under the names that vit-explain gives them:
  input.png                            the image as the network saw it
  attention_rollout_0.900_max.png      without a class; RATIO and FUSION are in the name
  grad_rollout_243_0.900_max.png       with class 243; of several, all in the name
  attention_rollout_0.900_max_start_1.png     with --start_block 1
  grad_rollout_243_0.900_max_libra.png        with --backward libra
  audit.png                            with --audit
  Other methods: METHOD_0.900_max.png. Several images get a folder each, named after the image.

All files are looked at before the first is explained: if one is no image, nothing is written; what
is damaged further on shows when its turn comes. Files appear whole or not at all, and never over an
image that was given. Exit code: 0 done, 1 failure, 2 wrong usage, 130 interrupted.
"""


def add_command(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="write pictures of what the network looked at",
        description="Write pictures of what a Vision Transformer looked at in images: attention "
        "rollout, or, with a class, gradient rollout for that class.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    explain.set_defaults(run=_explain)
    _add_subject(explain)
    _add_method(explain)
    _add_many(explain)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        type=Path,
        metavar="IMAGE",
        help="image files of any common format, folders of them, or names of samples",
    )
    add(*_spelled("image_path"), type=Path, metavar="IMAGE", help="one more image file")
    add("--model", default="demo", help=f"{OWN} or a name of timm")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="local weights, for --model or for what they name",
    )
    add("--weights", metavar="WHICH", help="averaged or raw, or the name of one in --checkpoint")
    add(*_spelled("image_size"), type=size, metavar="SIZE", help="pixels: 224, or 224x336 (H x W)")
    add(
        "--labels",
        metavar="NAMES",
        help="of the classes: a text file with one on each line, or separated by commas",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:0, ... (default: auto)")
    add(
        *_spelled("use_cuda"),
        dest="device",
        action="store_const",
        const="cuda",
        help="the same as --device cuda",
    )
    add("--out", type=Path, default=Path(), metavar="FOLDER", help="default: the current folder")


def _add_method(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--target",
        metavar="CLASS",
        help='index or label of a class, like "dog"; a pattern like "*cat*" stands for all classes '
        "whose label is like it, together",
    )
    target.add_argument(
        *_spelled("category_index"),
        nargs="+",
        metavar="INDEX",
        help="index of a class; several count together, the sum of their logits",
    )
    add(
        *_spelled("head_fusion"),
        choices=HEAD_FUSIONS,
        default="max",
        metavar="FUSION",
        help="how the heads are fused: max (default), mean or min",
    )
    add(
        *_spelled("discard_ratio"),
        type=ratio,
        default=0.9,
        metavar="RATIO",
        help="share of the lowest attention to leave out, in [0, 1) (default: 0.9)",
    )
    add(
        *_spelled("start_block"),
        type=whole_number,
        default=0,
        metavar="N",
        help="leave out the first N blocks (default: 0)",
    )
    add(
        "--backward",
        choices=BACKWARDS,
        default="plain",
        metavar="RULES",
        help="how gradients are taken: plain (default), or libra, the rules of LibraGrad",
    )
    add(
        "--audit",
        action="store_true",
        help="print, block by block, the patch that draws most attention, and draw audit.png",
    )


def _add_many(parser: argparse.ArgumentParser) -> None:
    """For runs over many images."""
    add = parser.add_argument
    add(*_spelled("keep_going"), action="store_true", help="go on after an image that fails")
    add(
        *_spelled("skip_existing"),
        action="store_true",
        help="leave out images whose picture of this method, ratio and fusion is there",
    )
    add("--table", type=csv, metavar="FILE", help="write what was predicted for each image, as CSV")
    add("--maps", action="store_true", help="write the maps as numbers too, as NAME.npy")


def _spelled(name: str) -> Iterable[str]:
    """vit-explain's spelling and the usual one; the values are stored under the first."""
    return f"--{name}", f"--{name.replace('_', '-')}"


def _explain(arguments: argparse.Namespace) -> int:
    _split_indices(arguments)
    if arguments.image_path:
        arguments.images.append(arguments.image_path)
    if not arguments.images:
        raise argparse.ArgumentError(None, "no image; give a file (see rollout explain --help)")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise argparse.ArgumentError(None, f"--out {arguments.out} is a file; give a folder")
    check_backward_of(arguments.backward, [arguments.method])
    if arguments.weights is not None and arguments.checkpoint is None:
        raise argparse.ArgumentError(None, "--weights chooses among those of a --checkpoint")
    # torch, timm and matplotlib take seconds to import: only once everything else is in order.
    from rollout.cli.inputs import plan
    from rollout.models.images import check_images

    jobs = plan(arguments)
    if not arguments.keep_going:
        check_images([job.image for job in jobs])
    from rollout.cli.explain import explain_files

    return explain_files(arguments, jobs)


def _split_indices(arguments: argparse.Namespace) -> None:
    """What follows the indices of classes are images: --category_index 281 282 cat.jpg."""
    given = arguments.category_index
    if given is None:
        return
    count = 0
    while count < len(given) and given[count].removeprefix("-").isdecimal():
        count += 1
    if not count:
        message = f"argument --category_index: invalid int value: {given[0]!r}"
        raise argparse.ArgumentError(None, message)
    arguments.category_index = list(map(int, given[:count]))
    arguments.images += map(Path, given[count:])
