"""The table of a comparison: each value is what the measure says of the map that `explain` makes;
the same call goes on where the last one stopped."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import left_as_it_was, small_vit
from PIL import Image

from rollout import compare, explain, wrap_model
from rollout.comparison import compare as compared
from rollout.comparison.candidates import CONTROLS, Candidate, default_candidates, find_candidates
from rollout.comparison.parts import read_comparison
from rollout.comparison.plan import DEAR, FAMILIES
from rollout.comparison.tables import MEASURES
from rollout.demo.scenes import SceneDataset
from rollout.maths.metrics import average_precision, target_share
from rollout.maths.placement import patch_coverage
from rollout.settings import METHODS, Settings

FEW = ["attention_rollout", ("gradient_rollout", Settings("max", 0.5))]
KEYS = ["image", "target", "method", "setting", "measure", "step"]


def few(model, scenes=4, **options):
    defaults = {"methods": FEW, "batch_size": 3, "progress": False}
    return compare(model, scenes, **{**defaults, **options})


@pytest.fixture(scope="module")
def table(model):
    with left_as_it_was(model.network):
        return few(model)


def value(table, image, label, method, setting, measure):
    found = table[
        (table["image"] == image)
        & (table["label"] == label)
        & (table["method"] == method)
        & (table["setting"] == setting)
        & (table["measure"] == measure)
    ]
    return found["value"].item()


def test_there_is_one_row_for_each_image_target_map_measure_and_step(table):
    assert list(table.columns) == [*KEYS[:2], "label", *KEYS[2:], "value"]
    assert not table.duplicated(KEYS).any()
    assert np.isfinite(table["value"]).all()
    points = table[table["step"].notna()]["measure"].unique()
    assert set(table["measure"].unique()) - set(points) == set(MEASURES)
    assert set(table["method"]) == {"gradient_rollout", "attention_rollout", *CONTROLS}
    assert set(table[table["method"] == "gradient_rollout"]["setting"]) == {"", "max, 0.5"}


@pytest.mark.parametrize("number", [0, 3])
def test_a_value_is_the_measure_of_what_explain_makes(model, table, number):
    name, scene = f"scene {number}", SceneDataset(20_000, 4, objects=2).scene(number)
    (one, first), (other, second) = scene.masks.items()
    explanation = explain(
        model, Image.fromarray(scene.image), target=other, head_fusion="max", discard_ratio=0.5
    )
    sizes = [
        model.pictures(model.images(Image.fromarray(np.uint8(255 * mask)).convert("RGB")))
        for mask in (first, second)
    ]
    rival, target = (patch_coverage(size.mean(dim=-1) > 0.5, (4, 8)) for size in sizes)
    key = (name, other, "gradient_rollout", "max, 0.5")
    precision, share = (
        value(table, *key, name) for name in ("average precision", "target against rival")
    )
    assert precision == pytest.approx(average_precision(explanation.map, target).item(), abs=1e-5)
    assert share == pytest.approx(target_share(explanation.map, target, rival).item(), abs=1e-5)


def test_the_answer_key_is_best_and_blind_maps_know_no_target(table):
    means = table.groupby(["measure", "method"], observed=True)["value"].mean()
    for measure in ("peak", "average precision", "target against rival"):
        best = means[measure]["control: mask"]
        assert best == means[measure].max() and (measure == "peak" or best > 0.9)
    assert means["two targets alike"]["attention_rollout"] == pytest.approx(1)
    assert means["target against rival"]["attention_rollout"] == pytest.approx(0.5)
    rival = means["target against rival"]["control: rival"]
    assert rival == pytest.approx(1 - _baseline(table, "target against rival"))


def _baseline(table, measure):
    found = table[(table["method"] == "gradient_rollout") & (table["setting"] == "")]
    return found[found["measure"] == measure]["value"].mean()


def test_the_size_of_a_batch_changes_nothing(model, table):
    again = few(model, batch_size=1)
    joined = table.merge(again, on=KEYS, suffixes=("", "_again"), validate="one_to_one")
    assert len(joined) == len(table) == len(again)
    off = (joined["value"] - joined["value_again"]).abs()
    assert (off > 1e-3).mean() < 0.02  # a near tie of two patches may fall the other way


def test_curves_begin_and_end_where_the_network_does(model, table):
    curves = table[table["measure"].isin(["deletion curve, tokens", "insertion curve, tokens"])]
    ends = curves[curves["step"].isin([0.0, 1.0])]
    whole = ((ends["step"] == 0) == ends["measure"].str.startswith("deletion")).to_numpy()
    for of_image, known in ((ends[whole], True), (ends[~whole], False)):
        for name, rows in of_image.groupby("image", observed=True):
            assert np.ptp(rows["value"]) < 1e-5
            if known:
                scene = SceneDataset(20_000, 4, objects=2).scene(int(name.split()[1]))
                logits = model.network(model.images(Image.fromarray(scene.image)))
                shares = model.probabilities(logits.detach())[0, rows["target"].tolist()]
                np.testing.assert_allclose(rows["value"], shares, atol=1e-5)


def test_maps_of_attention_do_not_see_the_classifier(table):
    similar = table[table["measure"] == "similarity after randomisation"]
    first = similar[similar["step"] == similar["step"].min()]
    blind = first[first["method"] == "attention_rollout"]["value"]
    assert (blind > 0.9999).all()
    assert first[first["method"] == "gradient_rollout"]["value"].mean() < 0.9
    assert sorted(similar["step"].unique()) == pytest.approx([0.25, 0.5, 0.75, 1.0])


# Going on


def test_a_run_that_is_stopped_goes_on(model, table, tmp_path, monkeypatch):
    done, measure = [], compared.job_table

    def stops(*job):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(job[-1].number)
        return measure(*job)

    monkeypatch.setattr(compared, "job_table", stops)
    with pytest.raises(KeyboardInterrupt):
        few(model, out=tmp_path)
    assert len(read_comparison(tmp_path)) < len(table)
    (tmp_path / "part-00001.parquet").write_bytes(b"half a file")
    monkeypatch.setattr(
        compared, "job_table", lambda *job: done.append(job[-1].number) or measure(*job)
    )
    whole = few(model, out=tmp_path)
    assert sorted(done) == sorted([*range(2 * len(FAMILIES)), 1])
    pd.testing.assert_frame_equal(whole, few(model, out=tmp_path))
    assert len(done) == 2 * len(FAMILIES) + 1
    pd.testing.assert_frame_equal(
        whole.astype({name: str for name in KEYS[:1]}),
        table.astype({name: str for name in KEYS[:1]}),
    )


def test_other_settings_are_refused(model, tmp_path):
    few(model, 1, out=tmp_path, measures=["where"])
    with pytest.raises(ValueError, match="begun with other settings: .*count was 1, is 2"):
        few(model, 2, out=tmp_path, measures=["where"])
    with pytest.raises(ValueError, match="other settings: maps"):
        few(model, 1, out=tmp_path, measures=["where"], methods=["raw_attention"])
    assert json.loads((tmp_path / "_settings.json").read_text())["model"]["name"] == "small"


# A user's own images


def test_own_images_are_measured_as_scenes_are(model, own_images, table):
    found = few(model, own_images)
    assert found["image"].nunique() == 3
    assert set(found["measure"]) == {
        one
        for one in set(table["measure"])
        if MEASURES.get(one) is None or MEASURES[one].family != "what_if"
    }
    by_scene = few(model, 3, seed=7, measures=["where"])
    ours = found[found["measure"] == "average precision"].assign(
        number=lambda rows: rows["image"].astype(str).str.extract(r"_(\d)\.png")[0].astype(int)
    )
    for row in ours[ours["method"] != "control: absent class"].to_dict("records"):
        if (row["number"], row["method"]) != (1, "control: rival"):
            case = (f"scene {row['number']}", row["label"], row["method"], row["setting"])
            assert row["value"] == pytest.approx(value(by_scene, *case, row["measure"]), abs=1e-5)
    alone = found[found["image"].astype(str).str.endswith("image_1.png")]
    assert "target against rival" not in set(alone["measure"])
    assert alone["target"].nunique() == 1


def test_own_images_without_what_is_needed_are_named(model, own_images):
    table = pd.read_csv(own_images)
    for column in ("path", "mask"):
        table[column] = [str(own_images.with_name(name)) for name in table[column]]
    with pytest.raises(ValueError, match=r"image_0.png has no mask; a comparison needs a table"):
        few(model, table.drop(columns="mask"))
    with pytest.raises(ValueError, match="image_0.png: unknown class 'unicorn'"):
        few(model, table.assign(target="unicorn"))
    with pytest.raises(ValueError, match="what_if draws scenes again"):
        few(model, table, measures=["what_if"])
    Image.new("L", (224, 224)).save(table["mask"][0])
    with pytest.raises(ValueError, match="its mask shows nothing"):
        few(model, table, measures=["where"])


# What is compared


def test_every_method_is_there_with_its_paper_s_settings(model):
    candidates = default_candidates(model)
    assert {one.method for one in candidates if one.settings == Settings()} == set(METHODS)
    assert len({(one.method, one.setting) for one in candidates}) == len(candidates)
    settings = {one.setting for one in candidates if one.method == "gradient_rollout"}
    assert settings >= {"", "max, 0.9", "from block 2", "0.9, as published"}
    # Its grid is no square, which vit-explain cannot lay out.
    usable = {one.setting for one in find_candidates(model)}
    assert "0.9, as published" not in usable and "max, 0.9" in usable


def test_a_dear_method_sees_the_first_images_alone(model, monkeypatch):
    monkeypatch.setitem(DEAR, "attention_rollout", 2)
    found = few(model, batch_size=2, measures=["where"])
    seen = found.groupby("method", observed=True)["image"].unique()
    assert set(seen["attention_rollout"]) == {"scene 0", "scene 1"}
    assert len(seen["gradient_rollout"]) == len(seen["control: random"]) == 4


def test_gradient_rollout_is_always_compared(model):
    assert find_candidates(model, ["raw_attention"])[0] == Candidate("gradient_rollout")
    with pytest.raises(ValueError, match="method must be one of"):
        find_candidates(model, ["guesswork"])
    with pytest.raises(ValueError, match="does not go with small: .*square"):
        find_candidates(model, [("gradient_rollout", Settings(legacy=True))])


def test_what_cannot_be_compared_is_said(model):
    features = wrap_model(small_vit(num_classes=0), image_size=(32, 48), name="features")
    with pytest.raises(ValueError, match="features has no classes"):
        few(features)
    letters = wrap_model(small_vit(), image_size=(32, 48), labels=list("abcdefg"), name="letters")
    with pytest.raises(ValueError, match="letters does not know the scenes' classes, such as"):
        few(letters)
    with pytest.raises(ValueError, match="measures must be some of where, what_if"):
        few(model, measures=["beauty"])
    with pytest.raises(ValueError, match="at least 1"):
        few(model, 0)


@pytest.mark.slow
def test_more_processes_make_the_same_table(tmp_path):
    options = {"methods": ["raw_attention"], "measures": ["where"], "progress": False}
    one = compare("demo", 4, batch_size=2, **options)
    two = compare("demo", 4, batch_size=2, workers=2, out=tmp_path, **options)
    joined = one.merge(two, on=KEYS, validate="one_to_one")
    assert len(joined) == len(one) == len(two)
    torch.testing.assert_close(
        torch.tensor(joined["value_x"]), torch.tensor(joined["value_y"]), atol=1e-4, rtol=1e-3
    )
