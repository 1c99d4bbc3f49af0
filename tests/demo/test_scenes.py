"""Scenes: reproducible, and an answer key that fits the picture."""

import numpy as np
import pytest
import torch
from draw_samples import SCENE_SEEDS, draw_samples
from helpers import small_vit
from PIL import Image
from torchvision import transforms

from rollout import wrap_model
from rollout.demo import scenes
from rollout.demo.quality import class_maps_of
from rollout.demo.samples import (
    answer_key,
    load_coverage,
    load_masks,
    object_coverage,
    sample_names,
    sample_path,
    scene_names,
)
from rollout.demo.scene_sweeps import sweep_scenes
from rollout.demo.scenes import CLASSES, GLYPHS, SceneDataset, draw_scene, sprites
from rollout.explanations.recording import record_model
from rollout.maths.token_layout import TokenLayout


def test_the_same_number_gives_the_same_scene():
    first, again = (SceneDataset(seed=3, length=9).scene(7) for _ in range(2))
    other = SceneDataset(seed=4, length=9).scene(7)
    assert np.array_equal(first.image, again.image)
    assert list(first.masks) == list(again.masks)
    assert not np.array_equal(first.image, other.image)


def test_masks_are_disjoint_and_each_object_is_visible():
    for number in range(40):
        scene = SceneDataset(seed=0, length=40).scene(number)
        masks = np.stack(list(scene.masks.values()))
        assert 1 <= len(masks) <= 3
        assert masks.sum(axis=0).max() == 1
        assert (masks.sum(axis=(1, 2)) > 200).all()


def test_a_mask_is_where_the_object_was_painted(monkeypatch):
    """With sprites painted in one flat colour, the mask is exactly where that colour is."""
    red = {name: [_flat(sprite) for sprite in drawn] for name, drawn in sprites().items()}
    monkeypatch.setattr(scenes, "sprites", lambda: red)
    monkeypatch.setattr(scenes, "_relight", lambda rng, image: image)
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed), ("tree",))
        painted = (scene.image == (255, 0, 1)).all(axis=2)
        assert painted.sum() > 200
        assert (scene.masks["tree"] >= painted).all()
        assert (scene.masks["tree"] & ~painted).mean() < 0.02  # the soft edge


def _flat(sprite):
    flat = Image.new("RGBA", sprite.size, (255, 0, 1, 255))
    flat.putalpha(sprite.getchannel("A"))
    return flat


def test_labels_name_the_objects_of_the_scene():
    dataset = SceneDataset(seed=1, length=20, objects=2)
    for number in range(20):
        image, labels = dataset[number]
        assert image.shape == (3, 224, 224) and image.dtype == torch.uint8
        present = {CLASSES[index] for index in labels.nonzero().flatten()}
        assert present == set(dataset.scene(number).masks)
        assert len(present) == 2


def test_every_glyph_of_the_sheet_is_drawn_and_none_is_cut():
    for name, glyphs in GLYPHS.items():
        for sprite in sprites()[name]:
            alpha = np.asarray(sprite)[..., 3]
            assert (alpha > 128).mean() > 0.1
        assert len(sprites()[name]) == len(glyphs)


@pytest.mark.parametrize("classes", [("cat", "cat"), ("unicorn",)])
def test_impossible_classes_are_named(classes):
    with pytest.raises(ValueError, match="different names out of"):
        draw_scene(np.random.default_rng(0), classes)


def test_the_shipped_scenes_are_what_the_code_draws(tmp_path):
    draw_samples(tmp_path)
    for name in SCENE_SEEDS:
        for suffix in ("", "_mask"):
            file = f"scene_{name}{suffix}.png"
            assert (tmp_path / file).read_bytes() == sample_path(file[:-4]).read_bytes(), file


def test_answer_keys_name_the_objects():
    for name, (classes, _) in SCENE_SEEDS.items():
        masks = load_masks(f"scene_{name}")
        assert set(masks) == set(classes)
        coverage = load_coverage(f"scene_{name}", (7, 14))
        for label, mask in masks.items():
            assert mask.shape == (224, 224) and mask.dtype == bool
            assert coverage[label].shape == (1, 7, 14)
            assert coverage[label].mean().item() == pytest.approx(mask.mean())


def test_samples_are_found_by_name_and_photographs_have_no_key():
    names = sample_names()
    assert len([name for name in names if name.startswith("scene")]) >= 8
    assert len([name for name in names if name.startswith("photo")]) == 4
    assert load_masks("photo_cat") == {}
    with pytest.raises(FileNotFoundError, match="no file nothing, and the samples are .*photo_cat"):
        sample_path("nothing")


def test_scenes_are_the_samples_with_masks():
    assert scene_names() == [name for name in sample_names() if load_masks(name)]
    assert scene_names() == sorted(f"scene_{name}" for name in SCENE_SEEDS)


def cropping(width):
    """A model that squashes to 64 x 64 and sees the middle of it, 32 x `width` pixels."""
    steps = [transforms.Resize((64, 64)), transforms.CenterCrop((32, width)), transforms.ToTensor()]
    return wrap_model(small_vit(img_size=(32, width)), transform=transforms.Compose(steps))


@pytest.mark.parametrize("width", [48, 64])
def test_the_answer_key_is_cropped_as_the_image_is(width):
    model = cropping(width)
    key = answer_key(model, "scene_cat_dog")
    for label, mask in load_masks("scene_cat_dog").items():
        side = (224 * (64 - width) // 2) // 64
        seen = mask[56:168, side : 224 - side]  # the same part of the original
        assert (label in key) == seen.any()
        if seen.any():
            assert key[label].shape == (1, 4, width // 8)
            assert key[label].mean().item() == pytest.approx(seen.mean(), rel=0.05)


def test_what_the_crop_leaves_out_is_in_no_key():
    masks, model = load_masks("scene_car_house"), cropping(48)
    far = [transforms.Resize((320, 320)), transforms.CenterCrop((32, 48)), transforms.ToTensor()]
    narrow = wrap_model(small_vit(), transform=transforms.Compose(far))
    assert set(answer_key(model, "scene_car_house")) == set(masks)
    assert set(answer_key(narrow, "scene_car_house")) < set(masks)
    whole = sum(answer_key(model, "scene_car_house").values())
    torch.testing.assert_close(object_coverage(model, "scene_car_house"), whole)
    small = TokenLayout((2, 3), 1, "token")
    assert object_coverage(narrow, "photo_cat", small).tolist() == [[[0.0] * 3] * 2]


@pytest.fixture(scope="module")
def with_margin():
    """28 x 28 patches of 8 pixels, and 6 pixels below and at the right that none of them has."""
    network = small_vit(img_size=(230, 230), num_classes=len(CLASSES))
    steps = [transforms.Pad((0, 0, 6, 6)), transforms.ToTensor()]
    return wrap_model(network, transform=transforms.Compose(steps), labels=CLASSES)


def test_the_answer_key_lies_where_the_patches_were_cut(with_margin):
    assert with_margin.layout.extent == (0, 0, 224, 224)
    expected = load_coverage("scene_cat_dog", (28, 28))
    for label, coverage in answer_key(with_margin, "scene_cat_dog").items():
        torch.testing.assert_close(coverage, expected[label])
    beyond = load_coverage("scene_cat_dog", (28, 26), (0, -16, 224, 192))
    for label, coverage in beyond.items():
        assert not coverage[..., :2].any()
        torch.testing.assert_close(coverage[..., 2:], expected[label][..., :24])


def test_scenes_are_swept_and_judged_where_the_patches_were_cut(with_margin):
    whole = wrap_model(
        small_vit(img_size=(224, 224), num_classes=len(CLASSES)),
        transform=transforms.ToTensor(),
        labels=CLASSES,
    )
    shared = {"methods": ["raw_attention"], "head_fusions": ["mean"], "discard_ratios": [0.0]}
    one, other = (sweep_scenes(m, ["scene_cat_dog"], **shared) for m in (whole, with_margin))
    assert one["area"].tolist() == pytest.approx(other["area"].tolist())
    batch = [SceneDataset(3, 2, objects=2).scene(number) for number in range(2)]
    images = [Image.fromarray(scene.image) for scene in batch]
    recording = record_model(with_margin, images)
    for which, (coverages, _) in enumerate(class_maps_of(recording, batch, {})):
        for target, scene in zip(coverages[0], batch, strict=True):
            mask = torch.from_numpy(list(scene.masks.values())[which]).float()
            patches = mask.unfold(0, 8, 8).unfold(1, 8, 8)
            torch.testing.assert_close(target, patches.mean(dim=(2, 3)))


def test_without_an_object_all_else_is_the_same_to_the_byte(monkeypatch):
    """Where the object's picture lies, soft edge included, is all that may differ."""
    dataset = SceneDataset(seed=5, length=12, objects=(4, 6))
    touched = []
    paste = scenes._paste
    monkeypatch.setattr(scenes, "_paste", lambda *args: (touched.append(args[1:]), paste(*args))[1])
    for number in range(12):
        touched.clear()
        whole = dataset.scene(number)
        places = dict(zip(whole.masks, touched, strict=True))
        for name in list(whole.masks)[::2]:
            left = dataset.scene(number, without=[name])
            assert list(left.masks) == [other for other in whole.masks if other != name]
            sprite, box = places[name]
            outside = np.ones((224, 224), bool)
            outside[box[1] : box[3], box[0] : box[2]] = np.asarray(sprite)[..., 3] == 0
            assert np.array_equal(left.image[outside], whole.image[outside])
            assert (left.image != whole.image).any(axis=2)[whole.masks[name]].mean() > 0.9
            for other, mask in left.masks.items():
                assert np.array_equal(mask[outside], whole.masks[other][outside])


def test_scenes_of_many_objects_have_as_many_as_asked_and_all_are_seen():
    dataset = SceneDataset(seed=6, length=40, objects=(4, 6))
    counts = []
    for number in range(40):
        masks = dataset.scene(number).masks
        counts.append(len(masks))
        assert min(mask.sum() for mask in masks.values()) > 100
    assert set(counts) == {4, 5, 6}
    assert np.array_equal(dataset.scene(3, without=()).image, dataset.scene(3).image)
