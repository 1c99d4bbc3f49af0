"""The shipped comparison: whole, of both models, and what README and its page say."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from rollout.comparison import published as module
from rollout.comparison.published import TABLES, publish, published
from rollout.comparison.tables import MEASURES, agreement

MODELS = ["demo", "dinov2_scenes"]


@pytest.mark.parametrize("table", TABLES)
def test_each_table_is_there_for_both_models(table):
    assert published(table)["model"].unique().tolist() == MODELS


def test_every_measure_has_its_controls_and_an_interval_around_its_mean():
    means = published("summary")
    assert set(means["measure"]) == set(MEASURES)
    assert (means["low"] <= means["mean"] + 1e-4).all()
    assert (means["mean"] <= means["high"] + 1e-4).all()
    uncontrolled = ("two targets alike", "similarity with random weights")
    controlled = means[~means["measure"].isin(uncontrolled)]
    for _, rows in controlled.groupby(["model", "measure"]):
        assert {"control: random", "control: mask"} <= set(rows["method"])


def test_differences_are_those_of_the_means():
    means = published("summary").set_index(["model", "method", "setting", "measure"])["mean"]
    rows = published("differences")
    rows = rows[(rows["measure"] == "peak") & (rows["method"] != "gradient_flow")]
    for row in rows.itertuples():
        pair = [
            means[row.model, row.method, row.setting, "peak"],
            means[row.model, "gradient_rollout", "", "peak"],
        ]
        assert pair[0] - pair[1] == pytest.approx(row.mean, abs=2e-4)


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="one of summary, differences, costs, got 'means'"):
        published("means")


def test_what_is_published_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path / "comparison")
    rows = pd.DataFrame({"method": ["legrad"], "setting": [""], "forward_passes": [2.5]})
    publish("costs", {"one": rows, "other": rows.assign(forward_passes=3.0)})
    found = published("costs")
    assert found["model"].tolist() == ["one", "other"]
    assert found["setting"].tolist() == ["", ""]
    assert found["forward_passes"].tolist() == [2.5, 3.0]


def test_agreement_is_spearmans_with_the_better_end_up():
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 2))
    rows = [
        {"method": method, "setting": "", "measure": measure, "mean": values[place, column]}
        for column, measure in enumerate(("peak", "deletion, tokens"))
        for place, method in enumerate("abcdef")
    ]
    noise = {"method": "control: random", "setting": "", "measure": "peak", "mean": 99.0}
    spread = [{**row, "measure": "entropy"} for row in rows[:6]]
    found = agreement(pd.DataFrame([*rows, noise, *spread]))
    assert list(found) == list(found.index) == ["peak", "deletion, tokens"]
    expected = spearmanr(values[:, 0], -values[:, 1]).statistic
    assert found.iloc[0, 1] == pytest.approx(expected)
    assert found.iloc[0, 0] == found.iloc[1, 1] == 1
