"""The comparison that README speaks of: tables that `make compare` wrote, shipped with the data."""

from collections.abc import Mapping

import pandas as pd

from rollout.files import DATA, check_shipped, enter_shipped, whole_file

FOLDER = DATA / "comparison"
TABLES = ("summary", "differences", "costs")


def published(table: str) -> pd.DataFrame:
    """One of TABLES for both models, as of `tables.summary`, `tables.differences`, `cost.costs`.

    Returns:
        Its rows, with a column `model` before them.

    Raises:
        ValueError: another name, or a file that is not what was shipped.
    """
    if table not in TABLES:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    return pd.read_csv(check_shipped(FOLDER / f"{table}.csv"), keep_default_na=False)


def publish(table: str, by_model: Mapping[str, pd.DataFrame]) -> None:
    """Write one of TABLES anew, and enter it into the manifest of the shipped data."""
    joined = pd.concat(by_model, names=["model"]).reset_index("model")
    path = FOLDER / f"{table}.csv"
    FOLDER.mkdir(exist_ok=True)
    with whole_file(path) as partial:
        joined.to_csv(partial, index=False)
    enter_shipped(path)
