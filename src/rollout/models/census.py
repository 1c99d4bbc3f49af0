"""Which of timm's architectures can be explained, and why the others cannot.

Each is built and run on torch's meta device, where tensors have shapes but no values: no weights,
little memory, and less than a second for most.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import timm
import torch
from torch import nn
from tqdm.auto import tqdm

from rollout.errors import UnsupportedNetworkError
from rollout.files import DATA, check_shipped, enter_shipped, whole_file
from rollout.models.load import wrap_model

TABLE = DATA / "models" / "census.csv"


@dataclass(frozen=True)
class Finding:
    """One architecture: how it is laid out, or why it is refused.

    Attributes:
        family: the class of the network.
        reason: why it is refused; "" for one that is explained.
        attention: "fused", or how else it is computed: "written out", "parallel", "differential".
    """

    name: str
    family: str
    reason: str = ""
    grid_size: str = ""
    num_prefix_tokens: int = 0
    pooling: str = ""
    blocks: int = 0
    heads: int = 0
    attention: str = ""
    classes: int = 0


def sketch(name: str) -> nn.Module:
    """The architecture without values.

    Raises:
        ValueError: an unknown name.
    """
    if name not in timm.list_models():
        raise ValueError(f"timm knows no architecture {name!r}; see timm.list_models('*vit*')")
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # of weights that are never filled
        return timm.create_model(name, pretrained=False)


def examine(name: str) -> Finding:
    """Explain an architecture as far as that goes without values."""
    network = sketch(name)
    family = type(network).__name__
    try:
        model = wrap_model(network, name=name)
    except UnsupportedNetworkError as error:
        return Finding(name, family, reason=error.finding)
    image = model.black_image()
    record = model.record(image.expand(2, -1, -1, -1), gradients=False)
    layout = model.layout_of(record, image)
    first = record.blocks[0]
    return Finding(
        name,
        family,
        grid_size="{} x {}".format(*layout.grid_size),
        num_prefix_tokens=layout.num_prefix_tokens,
        pooling=layout.pooling,
        blocks=len(record.blocks),
        heads=first.shape[1],
        attention=first.kind,
        classes=model.num_classes,
    )


def take_census(names: Sequence[str], processes: int = 2) -> Iterator[Finding]:
    """Examine many, in the order of the names, several at a time."""
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(examine, names, chunksize=8)


def read_census(path: Path = TABLE) -> pd.DataFrame:
    """The table that `make census` wrote: a row per architecture of the pinned timm."""
    return pd.read_csv(check_shipped(path), index_col="name", keep_default_na=False)


def by_family(census: pd.DataFrame) -> pd.DataFrame:
    """How many of each family are explained and refused, the largest families first."""
    explained = census["reason"] == ""
    counts = pd.DataFrame({"explained": explained, "refused": ~explained})
    counts = counts.groupby(census["family"]).sum()
    return counts.sort_values(["explained", "refused"], ascending=False)


def different(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """The architectures whose rows are not the same in both tables, new and missing ones too."""
    names = after.index.union(before.index)
    return list(names[(before.reindex(names) != after.reindex(names)).any(axis=1)])


def write_census(findings: Iterable[Finding], path: Path = TABLE) -> Path:
    table = pd.DataFrame([asdict(finding) for finding in findings])
    with whole_file(path) as partial:
        table.to_csv(partial, index=False)
    return enter_shipped(path)


def main() -> None:
    """Examine everything, write the table anew and say what is different."""
    before = read_census()
    names = timm.list_models()
    findings = tqdm(take_census(names), total=len(names), unit="architecture", desc="census")
    write_census(findings)
    census = read_census()
    print(by_family(census).sum().to_string())
    print(f"different from the table before: {', '.join(different(before, census)) or 'none'}")


def _one_thread() -> None:
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
