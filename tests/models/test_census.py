"""All of timm's architectures: each is explained, or refused with a reason, as the table says."""

import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import timm
from pandas.testing import assert_frame_equal

from rollout.models.census import (
    by_family,
    different,
    examine,
    read_census,
    take_census,
    write_census,
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return read_census()


def test_the_table_holds_every_architecture_of_the_pinned_timm(table):
    assert list(table.index) == timm.list_models()
    assert len(table) == 1371


def test_each_is_explained_or_refused_with_a_reason(table):
    explained = table["reason"] == ""
    assert int(explained.sum()) == 335 and int((~explained).sum()) == 1036
    described = table.loc[explained, ["grid_size", "pooling", "attention"]]
    assert (described != "").all(axis=None) and (table.loc[explained, "blocks"] > 0).all()
    assert (table.loc[~explained, "blocks"] == 0).all()
    assert table.loc[~explained, "reason"].str.len().min() > 20


@pytest.mark.parametrize(
    ("family", "explained", "refused"),
    [
        ("VisionTransformer", 202, 0),
        ("Eva", 65, 0),
        ("NaFlexVit", 14, 0),
        ("VisionTransformerRelPos", 14, 0),
        ("Cait", 10, 0),
        ("Beit", 7, 0),
        ("VisionTransformerDistilled", 4, 0),
        ("SwinTransformer", 0, 9),
        ("Xcit", 0, 28),
        ("ResNet", 0, None),
    ],
)
def test_the_families_fall_where_they_belong(table, family, explained, refused):
    counts = by_family(table).loc[family]
    assert counts["explained"] == explained
    assert counts["refused"] == refused if refused is not None else counts["refused"] > 50


README = (Path(__file__).parents[2] / "data" / "models" / "README.md").read_text()


def test_the_readme_counts_as_the_table_does(table):
    counts = by_family(table)
    rows = re.findall(r"^\| (`.*`) \| (\d+) \|", README, flags=re.M)
    for names, number in rows:
        families = [name.strip("`*") for name in names.split(", ")]
        counted = [counts[counts.index.str.startswith(family)] for family in families]
        exact = counts.loc[families[0], "explained"] if families[0] in counts.index else None
        assert int(number) == (exact or sum(part["explained"].sum() for part in counted))
    assert sum(int(number) for _, number in rows) == counts["explained"].sum()
    refused = re.findall(r"^\| [^`|]+ \| (\d+) \| [A-Z]", README, flags=re.M)
    assert sum(map(int, refused)) == counts["refused"].sum()
    explained, total = counts["explained"].sum(), len(table)
    assert f"Of the {total} architectures of timm {timm.__version__}, {explained} are" in README


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.repeats)])
def test_the_table_is_what_the_code_says_now(table, tmp_path, step):
    """The first of each family and one in sixteen; or the whole census: minutes on two cores."""
    names = timm.list_models()
    assert table.index.tolist() == names
    firsts = set(table["family"].drop_duplicates().index)
    chosen = [name for place, name in enumerate(names) if name in firsts or place % step == 0]
    path = write_census(take_census(chosen), tmp_path / "census.csv")
    assert_frame_equal(read_census(path), table.loc[chosen])


def test_what_differs_between_two_tables_is_named(table):
    changed, gone, came = table.index[3], table.index[0], "vit_of_tomorrow"
    after = table.drop(index=gone)
    after.loc[changed, "blocks"] += 1
    after.loc[came] = after.loc[changed]
    assert different(table, table) == []
    assert set(different(table, after)) == {changed, gone, came}


@pytest.mark.parametrize("name", ["vit_large_patch14_reg4_dinov2", "swin_base_patch4_window7_224"])
def test_one_architecture_agrees_with_the_table(table, name):
    finding = asdict(examine(name))
    assert finding.pop("name") == name
    assert finding == table.loc[name].to_dict()
