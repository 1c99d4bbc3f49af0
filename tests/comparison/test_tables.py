"""What a table says: means of images, paired differences, corrected; and what maps cost."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from rollout.comparison.candidates import Candidate
from rollout.comparison.cost import costs
from rollout.comparison.tables import (
    MEASURES,
    curve,
    differences,
    name_of,
    pivoted,
    summary,
    write_tables,
)
from rollout.maths.metrics import mean_interval
from rollout.maths.statistics import holm

GAINS = {"gradient_rollout": 0.0, "raw_attention": -0.3, "attention_rollout": 0.01, "legrad": 0.0}


@pytest.fixture
def table():
    """30 images of two targets; peak and entropy of four maps, one twice as good at neither."""
    random = np.random.default_rng(0)
    ease = random.normal(0, 1, (30, 2))  # an image that is easy is easy for all maps
    rows = [
        {
            "image": f"scene {image}",
            "target": target,
            "method": method,
            "setting": "",
            "measure": measure,
            "step": np.nan,
            "value": ease[image, target] + gain + random.normal(0, 0.1),
        }
        for method, gain in GAINS.items()
        for measure in ("entropy", "peak")
        for image in range(30)
        for target in (0, 1)
    ]
    return pd.DataFrame(rows).astype({"method": "category", "image": "category"})


def of(table, method, measure):
    chosen = table[(table["method"] == method) & (table["measure"] == measure)]
    return chosen.groupby("image", observed=True)["value"].mean().to_numpy()


def test_the_cases_of_an_image_count_as_one(table):
    found = summary(table)
    assert found["measure"].unique().tolist() == ["peak", "entropy"]  # the order of MEASURES
    row = found[(found["method"] == "raw_attention") & (found["measure"] == "peak")].iloc[0]
    expected = mean_interval(np.sort(of(table, "raw_attention", "peak")))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(expected)
    assert row["images"] == 30
    uneven = pd.concat([table, table[table["image"] == "scene 3"]])
    pd.testing.assert_frame_equal(summary(uneven), found)


def test_differences_are_paired_and_corrected_within_a_measure(table):
    found = differences(table)
    assert "gradient_rollout" not in set(found["method"]) and len(found) == 6
    for measure, rows in found.groupby("measure"):
        for row in rows.to_dict("records"):
            each = of(table, row["method"], measure) - of(table, "gradient_rollout", measure)
            assert row["mean"] == pytest.approx(each.mean())
            assert row["p"] == pytest.approx(wilcoxon(each).pvalue)
            # The images' ease, which is ten times as large as what differs, has gone.
            assert row["high"] - row["low"] < 0.15
        np.testing.assert_allclose(rows["p_holm"], holm(rows["p"]))
    told = found.set_index(["measure", "method"])
    assert told.loc[("peak", "raw_attention"), "p_holm"] < 1e-4
    assert told.loc[("peak", "legrad"), "p_holm"] > 0.05


def test_only_images_that_both_maps_have_are_compared(table):
    gone = table[(table["method"] != "legrad") | (table["image"] != "scene 0")]
    found = differences(gone, ["peak"]).set_index("method")["images"]
    assert found.to_dict() == {"raw_attention": 30, "attention_rollout": 30, "legrad": 29}
    with pytest.raises(ValueError, match="no map .*'agcam'"):
        differences(table, against=("agcam", ""))
    with pytest.raises(ValueError, match="no measure .*beauty.*entropy.*peak"):
        summary(table, ["beauty"])


def test_curves_keep_their_steps(table):
    points = [table[table["measure"] == "peak"].assign(measure="c", step=s) for s in (0.0, 0.5)]
    found = curve(pd.concat([table, *points]), "c")
    assert len(found) == 2 * len(GAINS) and set(found["step"]) == {0.0, 0.5}
    with pytest.raises(ValueError, match="no curve 'd'"):
        curve(table, "d")


def test_tables_are_written_beside_the_parts(table, tmp_path):
    shown = write_tables(table, tmp_path)
    pd.testing.assert_frame_equal(shown, pivoted(summary(table)))
    assert shown.columns.tolist() == ["peak", "entropy"]
    assert shown.index.tolist()[:2] == ["gradient rollout", "raw attention"]
    written = pd.read_csv(tmp_path / "_differences.csv", keep_default_na=False)
    assert written["p_holm"].tolist() == pytest.approx(differences(table)["p_holm"].tolist())


def test_maps_have_names_and_measures_a_direction():
    assert name_of("gradient_rollout", "max, 0.9") == "gradient rollout: max, 0.9"
    assert name_of("control: mask", "") == "control: mask"
    assert {one.better for one in MEASURES.values()} == {"higher", "lower", ""}


def test_a_map_with_gradients_costs_more_than_one_without(model):
    images = model.images(["scene_cat_dog"] * 4)
    candidates = [Candidate("raw_attention"), Candidate("gradient_rollout")]
    found = costs(model, images, candidates, rounds=3)
    blind, gradients = found["forward_passes"]
    assert 0.9 < blind < gradients
    assert found["method"].tolist() == ["raw_attention", "gradient_rollout"]
