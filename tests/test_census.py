"""All of timm's architectures: each is explained, or refused with a reason, as the table says."""

from dataclasses import asdict

import pandas as pd
import pytest
import timm
from pandas.testing import assert_frame_equal

from rollout.census import by_family, examine, read_census, take_census, write_census


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_is_what_the_code_says_now(table, tmp_path):
    """The whole census: some minutes on two cores."""
    path = write_census(take_census(timm.list_models()), tmp_path / "census.csv")
    assert_frame_equal(read_census(path), table)


@pytest.mark.parametrize("name", ["vit_large_patch14_reg4_dinov2", "swin_base_patch4_window7_224"])
def test_one_architecture_agrees_with_the_table(table, name):
    finding = asdict(examine(name))
    assert finding.pop("name") == name
    assert finding == table.loc[name].to_dict()
