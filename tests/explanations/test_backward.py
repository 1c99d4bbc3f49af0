"""Maps by another backward pass: from one recording, named in titles and files, refused in vain."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import left_as_it_was, small_vit
from torch.testing import assert_close

from rollout import explain, sweep, wrap_model
from rollout.capture.forward_pass import record_attention
from rollout.explanations.explanation import Explanation
from rollout.explanations.figure_file import read_figure, write_figure
from rollout.explanations.kept_maps import KeptMaps
from rollout.explanations.recording import record_model
from rollout.maths.rollout import gradient_rollout
from rollout.models.model import Model
from rollout.settings import METHODS, Settings

LABELS = ("cat", "dog", "bird", "fish", "car", "boat", "house")
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
LIBRA = Settings(backward="libra")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return wrap_model(small_vit(), labels=LABELS, image_size=(32, 48))


def test_the_map_is_made_of_the_gradients_by_the_rules(model):
    with left_as_it_was(model.network):
        found = explain(model, IMAGES, target=["dog", 5], backward="libra")
    record = record_attention(model.network, IMAGES, backward="libra")
    gradients = list(record.gradients([1, 5]))
    rows = gradient_rollout(list(record.attentions), gradients)[:, 0, 1:]
    assert_close(found.map, rows.reshape(2, 4, 6))
    plain = explain(model, IMAGES, target=["dog", 5])
    assert torch.equal(found.logits, plain.logits) and not torch.allclose(found.map, plain.map)


def test_titles_say_it(model):
    found = explain(model, IMAGES, target=["dog", 5], backward="libra")
    assert found.title().startswith("gradient rollout, libra: dog (")
    assert explain(model, IMAGES, target=1).title().startswith("gradient rollout: dog (")


@pytest.mark.parametrize("first", ["plain", "libra"])
def test_one_recording_serves_both_with_one_more_pass(model, first):
    passes = []

    def counted(*arguments, **options):
        passes.append(options["backward"])
        return record_attention(*arguments, **options)

    with patch("rollout.models.model.record_attention", counted):
        recording = record_model(model, IMAGES, backward=first)
        for target in (2, 5, 2):
            for backward in ("plain", "libra"):
                settings = Settings(backward=backward)
                ours = recording.relevance("gradient_rollout", target, settings)
                record = record_attention(model.network, IMAGES, backward=backward)
                gradients = list(record.gradients(target))
                rows = gradient_rollout(list(record.attentions), gradients)[:, 0, 1:]
                assert_close(ours, rows.reshape(2, 4, 6))
        recording.relevance("attention_rollout")
    assert passes == [first, {"plain": "libra", "libra": "plain"}[first]]


def test_a_score_is_followed_by_the_rules_too(model):
    def score(logits):
        return logits[:, 1] - logits[:, 2]

    found = record_model(model, IMAGES, score=score).relevance("gradient_rollout", None, LIBRA)
    assert_close(found, explain(model, IMAGES, score=score, backward="libra").map)


def test_a_recording_without_gradients_has_none_by_rules_either(model):
    recording = record_model(model, IMAGES, gradients=False)
    with pytest.raises(ValueError, match="recorded without gradients"):
        recording.relevance("gradient_rollout", 1, LIBRA)


def test_kept_maps_do_not_mix_them_up(model):
    kept = KeptMaps(record_model(model, IMAGES[:1]))
    for settings in (Settings(), LIBRA, Settings(), LIBRA, Settings("max", 0.5, backward="libra")):
        knobs = {name: getattr(settings, name) for name in ("head_fusion", "discard_ratio")}
        expected = explain(model, IMAGES[:1], target=2, backward=settings.backward, **knobs)
        found = kept.relevance("gradient_rollout", 2, settings)
        np.testing.assert_allclose(found, expected.map[0].numpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="attention_rollout takes no gradients"):
        kept.relevance("attention_rollout", 2, LIBRA)


def test_a_sweep_by_the_rules_says_so(model):
    options = {"methods": ["gradient_rollout"], "discard_ratios": [0.0, 0.5], "targets": [3]}
    table = sweep(model, IMAGES[:1], **options, backward="libra")
    assert set(table["backward"]) == {"libra"}
    for row in table.to_dict("records"):
        names = ("target", "head_fusion", "discard_ratio", "backward")
        expected = explain(model, IMAGES[:1], **{name: row[name] for name in names})
        np.testing.assert_allclose(row["relevance"], expected.map[0], rtol=1e-5, atol=1e-7)
    assert "backward" not in sweep(model, IMAGES[:1], **options)


def test_the_data_behind_a_picture_says_it(model, tmp_path):
    recording = record_model(model, IMAGES[:1])
    options = {"methods": ["gradient_rollout"], "head_fusions": ["mean"], "discard_ratios": [0.0]}
    (row,) = sweep(model, recording, **options, backward="libra").to_dict("records")
    shown = {
        "map": Explanation.of(recording, "gradient_rollout", 3, LIBRA),
        "row": row,
        "plain": Explanation.of(recording, "gradient_rollout", 3),
    }
    figure = shown["map"].plot()
    write_figure(figure, tmp_path / "a.png", shown, model="demo", image="scene_bird_dog")
    said = [panel["explain"].get("backward") for panel in read_figure(tmp_path / "a.png")]
    assert said == ["libra", "libra", None]


BLIND = [name for name, method in METHODS.items() if not method.gradients]


@pytest.mark.parametrize("method", BLIND)
def test_methods_without_gradients_refuse_it(model, method):
    said = f"{method} takes no gradients, so backward='libra' would change nothing"
    with pytest.raises(ValueError, match=said):
        explain(model, IMAGES, method=method, backward="libra")
    with pytest.raises(ValueError, match=said):
        record_model(model, IMAGES).relevance(method, 1, LIBRA)
    with pytest.raises(ValueError, match=said):
        sweep(model, IMAGES[:1], methods=["gradient_rollout", method], backward="libra")


@pytest.mark.parametrize("backward", ["lrp", None, ["libra"]])
def test_what_is_no_backward_pass_is_refused(model, backward):
    with pytest.raises(ValueError, match="backward must be one of plain, libra; got"):
        explain(model, IMAGES, backward=backward)


def test_the_arithmetic_of_vit_explain_has_the_plain_one(model):
    with pytest.raises(ValueError, match="vit-explain has the plain backward pass, not 'libra'"):
        explain(model, IMAGES, legacy=True, backward="libra")
