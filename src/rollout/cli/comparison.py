"""The command that measures maps against each other. Parsing and printing only."""

import argparse
from pathlib import Path
from typing import Any

from rollout.cli import ending
from rollout.cli.values import count, whole_number, words
from rollout.settings import METHODS

_EPILOG = """\
examples:
  rollout compare --model demo --scenes 500 --out runs/compare/demo
  rollout compare --images birds.csv --model vit_small_patch16_224 --out birds
  rollout compare --scenes 50 --measures where,tokens --methods gradient_rollout,raw_attention \\
      --out quick

--images is a table with a row for each target of an image: path (an image file), target (class
index or label) and mask (a picture that is bright where the target is); paths start from the
table's folder. Without it scenes of two emoji are drawn, for models that know their classes.

Measures: where (does the map lie on its target), what_if (scenes without one object: what that does
to the class), tokens and pixels (deletion and insertion), randomisation (of the weights).

OUT gets the table, for pandas.read_parquet(OUT), and _summary.csv and _differences.csv. The same
command again does only what is missing. Exit code: 0 done, 1 failure, 2 wrong usage, 130
interrupted.
"""


def add_command(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="measure many methods on many images, with controls and intervals",
        description="Measure the maps of every method against masks, removals and random weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    compare.set_defaults(run=_compare)
    add = compare.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the table goes")
    add("--model", default="demo", help="demo (the default), dinov2_scenes, or a name of timm")
    add("--checkpoint", type=Path, metavar="FILE", help="local weights for --model")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:0, ... (default: auto)")
    images = compare.add_mutually_exclusive_group()
    images.add_argument("--scenes", type=count, default=500, metavar="N", help="how many (500)")
    images.add_argument("--images", metavar="TABLE", help="your own, .csv or .parquet")
    add("--methods", type=words, metavar="METHODS", help=f"by commas: {', '.join(METHODS)} (all)")
    add("--measures", type=words, metavar="FAMILIES", help="by commas (all that are possible)")
    add("--most", type=_most, metavar="FAMILY=N", help="images of dear measures, by commas")
    add("--batch-size", type=count, default=10, metavar="N", help="images a forward pass (10)")
    add(
        "--workers",
        type=whole_number,
        metavar="N",
        help="processes; 0: none but this",
    )


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.checkpoint is not None and arguments.model == "demo":
        raise argparse.ArgumentError(None, "--checkpoint needs --model, its architecture's name")
    from rollout.comparison.compare import compare
    from rollout.comparison.plan import MOST
    from rollout.comparison.tables import write_tables

    try:
        table = compare(
            arguments.model,
            arguments.images or arguments.scenes,
            methods=arguments.methods,
            measures=arguments.measures,
            most=MOST | (arguments.most or {}),
            checkpoint=arguments.checkpoint,
            device=arguments.device,
            out=arguments.out,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
        )
    except KeyboardInterrupt:
        message = "interrupted; what is written is whole, and the same command goes on from there"
        return ending.complain(message, ending.INTERRUPTED)
    shown = write_tables(table, arguments.out)
    print(shown.to_string(float_format="{:.3f}".format, na_rep="-"))
    print(f"{arguments.out}: {len(table)} rows, {table['image'].nunique()} images")
    return 0


def _most(text: str) -> dict[str, int]:
    """tokens=50,pixels=20"""
    pairs = [word.partition("=") for word in words(text)]
    if not all(name and number.isdecimal() and int(number) for name, _, number in pairs):
        raise argparse.ArgumentTypeError(f"must be FAMILY=N,FAMILY=N, got {text!r}")
    return {name: int(number) for name, _, number in pairs}
