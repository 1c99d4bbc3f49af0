"""From an image to an Explanation: targets, settings, batches, files, and what is refused."""

import numpy as np
import pytest
import torch
from helpers import BAD_SETTINGS, left_as_it_was, small_vit
from networks import made, photos_for
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from rollout import explain, load_model, wrap_model
from rollout.capture.forward_pass import record_attention
from rollout.demo.samples import load_coverage, sample_path
from rollout.demo.scenes import SceneDataset
from rollout.errors import UnsupportedNetworkError
from rollout.explanations.recording import record_model
from rollout.maths.relevance import agcam
from rollout.maths.rollout import attention_rollout, gradient_rollout
from rollout.models.outputs import as_percent
from rollout.plots.figure import jet_overlay
from rollout.plots.maps import plot_maps, plot_scenes
from rollout.settings import METHODS, Settings

LABELS = ("cat", "dog", "bird", "fish", "car", "boat", "house")
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    steps = [
        transforms.Resize((32, 48)),
        transforms.ToTensor(),
        transforms.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
    ]
    return wrap_model(small_vit(), transform=transforms.Compose(steps), labels=LABELS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_per_image(model, method):
    explanation = explain(model, IMAGES, method=method, target=["dog", 5])
    assert explanation.map.shape == (2, 4, 6)
    assert explanation.map.dtype == torch.float32
    assert (explanation.map >= 0).all() and explanation.map.max() > 0
    assert explanation.target == (1, 5)
    assert explanation.labels == ("dog", "boat")
    assert_close(
        explanation.probability,
        explanation.logits.softmax(dim=1)[[0, 1], [1, 5]],
    )


def test_what_a_cell_shows_of_a_result_is_a_line(model):
    recording = record_model(model, IMAGES)
    explanation = explain(model, IMAGES, target=["dog", 5])
    assert "VisionTransformer, 4 x 6 patches" in repr(model) and "(2, 4, 6)" in repr(explanation)
    assert "(batch, heads, query, key) = (2, " in repr(recording)
    for shown in (model, recording, recording.record, explanation):
        assert len(repr(shown)) < 400 and "\n" not in repr(shown), shown


@pytest.mark.parametrize(
    ("probability", "text"), [(0.984, "98%"), (0.0234, "2.3%"), (4e-5, "<0.1%"), (1.0, "100%")]
)
def test_small_probabilities_are_not_shown_as_none(probability, text):
    assert as_percent(probability) == text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("discard_ratio", [0.0, 0.9])
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_maps_of_the_cpu(method, discard_ratio):
    image = sample_path("scene_cat_dog")
    here, there = (
        explain(model, image, method=method, target="dog", discard_ratio=discard_ratio).map
        for model in (load_model("demo", device=device) for device in ("cpu", "cuda"))
    )
    assert there.device.type == "cpu"
    # A small difference in the attention can move an entry over the threshold of discarding.
    assert_close(there, here, rtol=0, atol=1e-5 if discard_ratio == 0 else 5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_images_one_by_one(model, method):
    together = explain(model, IMAGES, method=method, target=3).map
    single = [explain(model, IMAGES[i : i + 1], method=method, target=3).map for i in range(2)]
    assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-6)


def test_the_map_is_the_rollout_of_the_recorded_attention(model):
    knobs = {"head_fusion": "max", "discard_ratio": 0.5, "start_block": 1}
    record = record_attention(model.network, IMAGES)
    readout = torch.eye(25)[0]
    vanilla = attention_rollout(record.attentions, readout=readout, **knobs)
    specific = gradient_rollout(record.attentions, record.gradients(4), readout=readout, **knobs)
    for method, relevance in [("attention_rollout", vanilla), ("gradient_rollout", specific)]:
        explanation = explain(model, IMAGES, method=method, target=4, **knobs)
        assert_close(explanation.map, relevance[:, 1:].view(2, 4, 6))
        assert explanation.settings == Settings(**knobs)


def test_without_a_target_the_predicted_class_is_explained(model):
    explanation = explain(model, IMAGES)
    assert explanation.target == tuple(explanation.logits.argmax(dim=1).tolist())


def test_a_target_tensor_and_inference_mode_work(model):
    expected = explain(model, IMAGES, target=[2, 3]).map
    with torch.inference_mode():
        assert_close(explain(model, IMAGES, target=torch.tensor([2, 3])).map, expected)


def test_only_gradient_methods_depend_on_the_target(model):
    for name, method in METHODS.items():
        first, second = (explain(model, IMAGES, method=name, target=t).map for t in (0, 1))
        assert torch.equal(first, second) != method.gradients


def test_an_image_file_is_prepared_and_shown_as_the_network_saw_it(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    explanation = explain(model, tmp_path / "image.png")
    assert_close(explanation.pictures[0], torch.from_numpy(pixels) / 255, rtol=0, atol=1e-6)
    from_list = explain(model, [tmp_path / "image.png", Image.fromarray(pixels)])
    assert_close(from_list.map[0], explanation.map[0])
    assert_close(from_list.map[1], explanation.map[0])


def test_the_saliency_map_is_stretched_to_the_image(model):
    explanation = explain(model, IMAGES)
    assert explanation.saliency_map().shape == (2, 32, 48)
    assert explanation.saliency_map((7, 9)).shape == (2, 7, 9)
    assert_close(torch.from_numpy(explanation.saliency_map((4, 6))), explanation.map)


def test_the_figure_is_saved_whole_or_not_at_all(model, tmp_path):
    explanation = explain(model, IMAGES)
    with Image.open(explanation.save(tmp_path / "a.png")) as saved:
        assert saved.width > 500
    assert explanation.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="nonsense"):
        explanation.save(tmp_path / "a.nonsense")
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.pdf"}


def test_figures_name_method_class_probability_and_unit(model):
    explanation = explain(model, IMAGES, target=["dog", "car"])
    figure = explanation.plot()
    titles = [ax.get_title() for ax in figure.axes]
    assert explanation.title(0) in titles and explanation.title(1) in titles
    assert explanation.title(0).startswith("gradient rollout: dog (")
    assert METHODS["gradient_rollout"].unit in [ax.get_ylabel() for ax in figure.axes]


@pytest.mark.parametrize("shared", [True, False])
def test_panels_that_are_compared_share_their_scale(shared):
    maps = {"low": np.full((2, 3), 1.0), "high": np.full((2, 3), 4.0)}
    figure = plot_maps(np.zeros((8, 12, 3)), maps, unit="share", shared=shared)
    overlays = {ax.get_title(): ax.images[-1] for ax in figure.axes if len(ax.images) > 1}
    assert [image.get_clim()[1] for image in overlays.values()] == ([4, 4] if shared else [1, 4])
    assert ("brightest: 1" in "".join(overlays)) != shared


def test_an_overlay_is_aligned_with_the_image_and_jet_keeps_bytes():
    picture, saliency = np.random.default_rng(0).random((6, 8, 3)), np.eye(6, 8)
    coloured = jet_overlay(picture, saliency)
    assert coloured.shape == (6, 8, 3) and coloured.dtype == np.uint8 and coloured.max() == 255
    assert jet_overlay(picture, np.zeros((6, 8))).max() == 255
    assert len(plot_scenes([SceneDataset(0, 3).scene(i) for i in range(3)]).axes) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *BAD_SETTINGS,
        ({"method": "gradcam"}, "method must be one of raw_attention, .*got 'gradcam'"),
        ({"method": ["raw_attention"]}, "method must be one of"),
        ({"start_block": 3}, r"start_block must be in \[0, 2\]"),
        ({"target": 7}, r"class index must be in \[0, 6\], got 7"),
        ({"target": -1}, r"class index must be in \[0, 6\], got -1"),
        ({"target": True}, "target must be a class index or a label, got True"),
        ({"target": 1.5}, "target must be a class index or a label, got 1.5"),
        ({"target": "dgo"}, r"unknown class 'dgo'; did you mean 'dog' \(1\)"),
        ({"target": ["cat", "dog", "cat"]}, "got 3 targets for 2 images"),
    ],
)
@pytest.mark.parametrize("method", ["attention_rollout", "gradient_rollout"])
def test_settings_that_make_no_sense_are_named(model, method, settings, message):
    with left_as_it_was(model.network), pytest.raises(ValueError, match=message):
        explain(model, IMAGES, **{"method": method, **settings})


@pytest.mark.parametrize("method", ["legrad", "legrad_per_block"])
def test_a_patch_is_not_traced_by_what_takes_all_queries(model, method):
    with left_as_it_was(model.network), pytest.raises(ValueError, match="mean over all queries"):
        explain(model, IMAGES, method=method, query=(1, 2))


def test_no_other_setting_is_ignored(model):
    """But the first block, of those that show the last one."""
    choices = [{"head_fusion": "max"}, {"discard_ratio": 0.98}, {"end_block": 2}, {"head": 1}]
    choices += [{"start_block": 1}, {"query": (1, 2)}]
    for name, method in METHODS.items():
        plain = explain(model, IMAGES, method=name, target=3).map
        for knobs in choices:
            of_last_block = name in ("raw_attention", "attention_gradcam")
            skipped = "query" in knobs and not method.traces
            if skipped or (of_last_block and "start_block" in knobs):
                continue
            other = explain(model, IMAGES, method=name, target=3, **knobs).map
            assert not torch.allclose(other, plain), (name, knobs)


def test_agcam_needs_the_scores_and_is_the_same_wherever_they_are_seen(model):
    eager, fused = (made("ViT", kind) for kind in ("eager", "sdpa"))
    images = photos_for("ViT")
    with pytest.raises(UnsupportedNetworkError, match="attn_implementation='sdpa'"):
        explain(wrap_model(eager), images, method="agcam")
    found = explain(wrap_model(fused), images, method="agcam", target=2).map
    record = record_attention(eager, images)
    gradients, readout = record.gradients(2), torch.eye(25)[0]
    # Scores are the logarithm of attention but for a constant in each row, which q k tells.
    layers = [layer.attention for layer in fused.vit.layers]
    scores = scores_of(fused, layers, images)
    assert_close([one.softmax(-1) for one in scores], list(record.attentions))
    expected = agcam(scores, gradients, readout=readout)[:, 1:].reshape(2, 4, 6)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def scores_of(network, layers, images):
    """q k^T / sqrt(head_dim) of Hugging Face's layers, by hand."""
    kept = []
    hooks = [
        getattr(layer, name).register_forward_hook(lambda *call: kept.append(call[-1]))
        for layer in layers
        for name in ("q_proj", "k_proj")
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    heads = [one.detach().unflatten(-1, (3, 8)).transpose(1, 2) for one in kept]
    return [query @ key.mT / 8**0.5 for query, key in zip(heads[::2], heads[1::2], strict=True)]


def test_an_output_that_is_not_finite_is_refused(model):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite \(NaN or infinite\) for image \[1\]"):
        explain(model, images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_agrees_loosely(dtype):
    torch.manual_seed(0)
    transform = transforms.Compose([transforms.Resize((32, 48)), transforms.ToTensor()])
    full = wrap_model(small_vit(), transform=transform)
    torch.manual_seed(0)
    half = wrap_model(small_vit().to(dtype), transform=transform)
    maps = [explain(model, IMAGES, target=1).map.flatten() for model in (full, half)]
    assert torch.corrcoef(torch.stack(maps))[0, 1] > 0.98


def test_the_demo_model_finds_the_class_in_a_sample():
    """What the workbench is for, end to end: cat and dog in one image, told apart."""
    demo = load_model("demo", device="cpu")
    image = sample_path("scene_cat_dog")
    coverage = load_coverage("scene_cat_dog", demo.layout.grid_size)
    for label, rival in [("cat", "dog"), ("dog", "cat")]:
        found = explain(demo, image, target=label).map
        assert (found * coverage[label]).sum() > 2 * (found * coverage[rival]).sum()


def test_boxes_and_masks_are_of_the_images_as_the_network_saw_them() -> None:
    model = wrap_model(small_vit(), image_size=(32, 48))
    explanation = explain(model, torch.randn(2, 3, 32, 48))
    for threshold in (0.0, 1.0):
        masks = explanation.mask(threshold)
        assert masks.shape == (2, 32, 48) and masks.dtype == bool
        for mask, values, boxes in zip(
            masks, explanation.map, explanation.boxes(threshold), strict=True
        ):
            level = values.mean() + threshold * values.std(correction=0)
            expected = (values > level).repeat_interleave(8, 0).repeat_interleave(8, 1)
            assert torch.equal(torch.from_numpy(mask), expected)
            covered = torch.zeros(32, 48, dtype=torch.bool)
            for box in boxes:
                covered[box.top : box.bottom, box.left : box.right] = True
            assert boxes and (covered | ~expected).all()
