"""The command line: what to explain goes in, pictures come out. Parsing and printing only."""

import argparse
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rollout.cli import collection, comparison, ending
from rollout.settings import BACKWARDS, HEAD_FUSIONS, METHODS

_OWN = (
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ending.USAGE, f"rollout: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: the arguments, by default those of the process.
    """

    def command() -> int | None:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)

    return ending.run(command)


def _explain(arguments: argparse.Namespace) -> int:
    _split_indices(arguments)
    if arguments.image_path:
        arguments.images.append(arguments.image_path)
    if not arguments.images:
        raise argparse.ArgumentError(None, "no image; give a file (see rollout explain --help)")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise argparse.ArgumentError(None, f"--out {arguments.out} is a file; give a folder")
    collection.check_backward_of(arguments.backward, [arguments.method])
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


def _models(arguments: argparse.Namespace) -> None:
    if arguments.names and (arguments.pattern != "*" or arguments.refused):
        raise argparse.ArgumentError(None, "give names or a pattern, not both")
    from rollout.cli.models import show_models

    show_models(arguments)


def _notebooks(arguments: argparse.Namespace) -> int:
    if arguments.grid:
        from rollout.cli.notebook_grid import run_notebook_grid

        return run_notebook_grid(arguments)
    from rollout.cli.notebooks import run_notebooks

    return run_notebooks(arguments)


def _lab(arguments: argparse.Namespace) -> None:
    from rollout.cli.lab import open_lab

    open_lab(arguments)


class _Version(argparse.Action):
    """Looks the version up when it is asked for: help should need nothing."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        print(f"rollout {metadata.version('rollout-workbench')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rollout", description="See what a Vision Transformer looks at.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_explain(commands)
    collection.add_commands(commands)
    comparison.add_command(commands)
    _add_models(commands)
    _add_notebooks(commands)
    _add_lab(commands)
    return parser


def _add_explain(commands: Any) -> None:
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


def _add_models(commands: Any) -> None:
    models = commands.add_parser(
        "models",
        help="which models can be explained, and how",
        description="The card of each model named: patch grid, prefix tokens, pooling, memory, and "
        "which methods are possible. Without a name: timm's architectures that can be explained.",
        allow_abbrev=False,
    )
    models.set_defaults(run=_models)
    add = models.add_argument
    add("names", nargs="*", metavar="NAME", help=f"{_OWN} or a name of timm")
    add("--pattern", default="*", help="list those whose name fits, such as 'vit_*dinov2*'")
    add("--refused", action="store_true", help="list the others too, each with the reason")


def _add_notebooks(commands: Any) -> None:
    notebooks = commands.add_parser(
        "notebooks",
        help="run notebooks with other parameters",
        description="Run notebooks with papermill, one after the other, and say what they wrote.",
        allow_abbrev=False,
    )
    notebooks.set_defaults(run=_notebooks)
    add = notebooks.add_argument
    add("notebooks", nargs="+", metavar="NOTEBOOK")
    add("--out", default="runs", metavar="FOLDER", help="for what is written (default: runs)")
    add(
        *("-p", "--parameter"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks",
    )
    collection.add_grid(notebooks)


def _add_lab(commands: Any) -> None:
    lab = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Copy the notebooks that come with rollout into a folder, never over one that "
        "is there, and open JupyterLab on the first.",
        allow_abbrev=False,
    )
    lab.set_defaults(run=_lab)
    add = lab.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        default=Path("rollout-notebooks"),
        metavar="FOLDER",
        help="for the notebooks (default: rollout-notebooks)",
    )
    add("--no-browser", action="store_true", help="only serve, and print the address")


def _add_many(parser: argparse.ArgumentParser) -> None:
    """For runs over many images."""
    add = parser.add_argument
    add(*_spelled("keep_going"), action="store_true", help="go on after an image that fails")
    add(
        *_spelled("skip_existing"),
        action="store_true",
        help="leave out images whose picture of this method, ratio and fusion is there",
    )
    add(
        "--table", type=_csv, metavar="FILE", help="write what was predicted for each image, as CSV"
    )
    add("--maps", action="store_true", help="write the maps as numbers too, as NAME.npy")


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
    add("--model", default="demo", help=f"{_OWN} or a name of timm")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="local weights, for --model or for what they name",
    )
    add("--weights", metavar="WHICH", help="averaged or raw, or the name of one in --checkpoint")
    add(*_spelled("image_size"), type=_size, metavar="SIZE", help="pixels: 224, or 224x336 (H x W)")
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
        type=_ratio,
        default=0.9,
        metavar="RATIO",
        help="share of the lowest attention to leave out, in [0, 1) (default: 0.9)",
    )
    add(
        *_spelled("start_block"),
        type=_count,
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


def _spelled(name: str) -> Iterable[str]:
    """vit-explain's spelling and the usual one; the values are stored under the first."""
    return f"--{name}", f"--{name.replace('_', '-')}"


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio < 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1), got {text!r}")
    return ratio


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, got {text!r}")
    return int(text)


def _size(text: str) -> int | tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"must be pixels, as 224 or 224x336, got {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _csv(text: str) -> Path:
    if Path(text).suffix.lower() != ".csv":
        raise argparse.ArgumentTypeError(f"must be a file NAME.csv, got {text!r}")
    return Path(text)
