"""What a comparison says: means with intervals, and differences to gradient rollout with a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from rollout.comparison import randomisation, removal, what_if, where
from rollout.comparison.candidates import BASELINE
from rollout.files import whole_file
from rollout.maths.metrics import mean_interval
from rollout.maths.statistics import holm, paired_p
from rollout.settings import METHODS

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Measure:
    """What is said of a measure.

    Attributes:
        family: which part of a comparison makes it.
        better: the direction in which a map is better; "" where that is no matter of better.
    """

    family: str
    better: Better


def _removal(what: str) -> dict[str, Measure]:
    directions: dict[str, Better] = {
        removal.DELETION: "lower",
        removal.INSERTION: "higher",
        removal.POSITIVE: "lower",
        removal.NEGATIVE: "higher",
    }
    return {f"{name}, {what}": Measure(what, better) for name, better in directions.items()}


MEASURES: Mapping[str, Measure] = {
    where.PEAK: Measure("where", "higher"),
    where.PRECISION: Measure("where", "higher"),
    where.MASS: Measure("where", "higher"),
    where.AGAINST: Measure("where", "higher"),
    where.ALIKE: Measure("where", "lower"),
    where.SPREAD: Measure("where", ""),
    what_if.CORRELATION: Measure("what_if", "higher"),
    what_if.DELETION_CHECK: Measure("what_if", "higher"),
    what_if.PRESERVATION_CHECK: Measure("what_if", "higher"),
    what_if.IRRELEVANT: Measure("what_if", "lower"),
    **_removal("tokens"),
    **_removal("pixels"),
    randomisation.RANDOMISED: Measure("randomisation", "lower"),
}
_MAP = ["method", "setting"]


def by_image(table: pd.DataFrame) -> pd.DataFrame:
    """One value for each image, map, measure and step: its cases belong together, as their mean."""
    keys = [*_MAP, "measure", "step", "image"]
    return (
        table.groupby(keys, sort=False, observed=True, dropna=False)["value"].mean().reset_index()
    )


def summary(table: pd.DataFrame, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """The mean of each measure of each map, with a 95 % interval by bootstrap over the images.

    Args:
        table: of `compare`.
        measures: names out of MEASURES; None is all that are there, without points of curves.

    Returns:
        A row for each map and measure: method, setting, measure, mean, low, high, images.
    """
    return _means(_chosen(table, measures), [*_MAP, "measure"])


def curve(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The points of a curve, such as "deletion curve, tokens", as `summary`, with a column step."""
    chosen = table[table["measure"] == measure]
    if chosen.empty:
        raise ValueError(f"there is no curve {measure!r} in the table")
    return _means(chosen, [*_MAP, "measure", "step"])


def _means(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for named, values in by_image(table).groupby(keys, sort=False, observed=True):
        rows.append({**dict(zip(keys, named, strict=True)), **_interval(values["value"])})
    return pd.DataFrame(rows)


def _interval(values: pd.Series) -> dict[str, float]:
    """Sorted, so that the bootstrap does not depend on the order of the images."""
    mean, low, high = mean_interval(np.sort(values.to_numpy()))
    return {"mean": mean, "low": low, "high": high, "images": len(values)}


def differences(
    table: pd.DataFrame,
    measures: Sequence[str] | None = None,
    *,
    against: tuple[str, str] = (BASELINE[0], ""),
) -> pd.DataFrame:
    """Each map less another one on the same images, with a paired test.

    Args:
        against: method and setting of the other.

    Returns:
        As `summary`, of the differences; p by Wilcoxon's signed ranks over the images, and
        p_holm, corrected for all maps that are held against the other by the same measure.
    """
    values = by_image(_chosen(table, measures))
    base = values[(values["method"] == against[0]) & (values["setting"] == against[1])]
    if base.empty:
        raise ValueError(f"there is no map {against} in the table to hold the others against")
    joined = values.merge(base[["measure", "image", "value"]], on=["measure", "image"])
    joined["difference"] = joined["value_x"] - joined["value_y"]
    rows = []
    for (method, setting, measure), found in joined.groupby(
        [*_MAP, "measure"], sort=False, observed=True
    ):
        if (method, setting) != against:
            named = {"method": method, "setting": setting, "measure": measure}
            p = paired_p(found["difference"].to_numpy())
            rows.append({**named, **_interval(found["difference"]), "p": p})
    result = pd.DataFrame(rows)
    corrected = result.groupby("measure", sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    return result.assign(p_holm=corrected)


def _chosen(table: pd.DataFrame, measures: Sequence[str] | None) -> pd.DataFrame:
    there = set(table["measure"].unique())
    if measures is None:
        measures = [name for name in MEASURES if name in there]
    missing = [name for name in measures if name not in there]
    if missing or not measures:
        raise ValueError(f"the table has no measure {missing}; it has {sorted(there)}")
    order = {name: place for place, name in enumerate(measures)}
    chosen = table[table["measure"].isin(measures)]
    place = chosen["measure"].map(order).astype(int).to_numpy()
    return chosen.iloc[np.argsort(place, kind="stable")]


def name_of(method: str, setting: str) -> str:
    """Such as "gradient rollout: max, 0.9"."""
    title = METHODS[method].title if method in METHODS else method
    return f"{title}: {setting}" if setting else title


def named(summarised: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with a column `map` of names before them, as plots take them."""
    names = [name_of(*pair) for pair in zip(summarised.method, summarised.setting, strict=True)]
    result = summarised.copy()
    result.insert(0, "map", names)
    return result


def pivoted(summarised: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """A row for each map and a column for each measure, of `summary` or `differences`."""
    rows = named(summarised)
    wide = rows.pivot(index="map", columns="measure", values=column)
    return wide.reindex(index=rows["map"].unique(), columns=rows["measure"].unique())


def agreement(summarised: pd.DataFrame) -> pd.DataFrame:
    """Whether measures rank the methods alike: Spearman's correlation of every two over the maps.

    Each measure has its better end up; controls, and measures without a better end, are left out.

    Args:
        summarised: of `summary`, for one model.

    Returns:
        (measures, measures), named by measure; NaN for two that share fewer than three maps.
    """
    methods = summarised[~summarised["method"].str.startswith("control")]
    ranked = methods[methods["measure"].map(lambda name: MEASURES[name].better != "")]
    wide = pivoted(ranked)
    lower = [MEASURES[name].better == "lower" for name in wide.columns]
    signed = wide * np.where(lower, -1, 1)
    return signed.corr(method="spearman", min_periods=3).rename_axis(index=None, columns=None)


def write_tables(table: pd.DataFrame, out: str | Path) -> pd.DataFrame:
    """Write _summary.csv and _differences.csv into a folder; returns the means as `pivoted`."""
    summarised = summary(table)
    for name, found in (("_summary", summarised), ("_differences", differences(table))):
        with whole_file(Path(out) / f"{name}.csv") as partial:
            found.to_csv(partial, index=False)
    return pivoted(summarised)
