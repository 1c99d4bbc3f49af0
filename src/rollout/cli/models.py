"""What `rollout models` prints: cards of models, and which of timm's can be explained."""

from argparse import ArgumentError, Namespace
from fnmatch import fnmatchcase

import pandas as pd

from rollout.models.card import ModelCard, describe
from rollout.models.census import read_census, sketch
from rollout.models.load import load_model, wrap_model
from rollout.models.networks import OWN_MODELS


def show_models(arguments: Namespace) -> None:
    """Print the card of each model named, or a line for each that fits the pattern.

    Raises:
        ArgumentError: a name or pattern that fits nothing.
        UnsupportedNetworkError: a model that cannot be explained; the message says why.
    """
    if arguments.names:
        for name in arguments.names:
            print(_card(name))
        return
    table = read_census()
    table = table[[fnmatchcase(name, arguments.pattern) for name in table.index]]
    if table.empty:
        raise ArgumentError(None, f"no architecture of timm fits {arguments.pattern!r}")
    explained = table[table["reason"] == ""]
    for name, row in explained.iterrows():
        print(f"{name}: {_line(row)}")
    if arguments.refused:
        for name, row in table[table["reason"] != ""].iterrows():
            print(f"{name}: refused, {row['reason']}")
    print(f"{len(explained)} of {len(table)} can be explained")


def _card(name: str) -> ModelCard:
    if name in OWN_MODELS:
        return describe(load_model(name, device="cpu"))
    try:
        network = sketch(name)
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error
    return describe(wrap_model(network, name=name))


def _line(row: pd.Series) -> str:
    classes = f"{row['classes']} classes" if row["classes"] else "features"
    return (
        f"grid {row['grid_size']}, {row['num_prefix_tokens']} prefix tokens, pooling "
        f"{row['pooling']}, {row['blocks']} blocks of {row['heads']} heads, {classes}"
    )
