"""The command line: what to explain goes in, pictures come out. Parsing and printing only."""

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rollout.cli import collection, comparison, ending, explain_arguments
from rollout.cli.explain_arguments import OWN


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
    explain_arguments.add_command(commands)
    collection.add_commands(commands)
    comparison.add_command(commands)
    _add_models(commands)
    _add_notebooks(commands)
    _add_lab(commands)
    return parser


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
    add("names", nargs="*", metavar="NAME", help=f"{OWN} or a name of timm")
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
