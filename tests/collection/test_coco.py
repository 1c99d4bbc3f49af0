"""Boxes and masks in COCO's form: read back, they are what `Explanation` says."""

import json

import numpy as np
import pytest

from rollout import collect, explain
from rollout.collection.coco import run_lengths, write_coco


def decoded(segmentation):
    """As COCO's own tools read run lengths: down the columns, 0s first."""
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(width, height).T.astype(bool)


@pytest.mark.parametrize(("which", "threshold"), [("model", 0.0), ("margin_model", 1.0)])
def test_boxes_and_masks_are_those_of_the_explanation(which, threshold, request, photos, tmp_path):
    model = request.getfixturevalue(which)
    options = {"workers": 0, "progress": False, "targets": ["dog", "fish"]}
    collect(model, photos, tmp_path / "maps", **options)
    counts = write_coco(tmp_path / "maps", tmp_path / "boxes.json", threshold=threshold)
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert counts == (len(content["images"]), len(content["annotations"])) and counts[0] == 10
    assert content["categories"] == [{"id": 2, "name": "dog"}, {"id": 4, "name": "fish"}]
    assert [one["id"] for one in content["annotations"]] == list(range(1, counts[1] + 1))
    for image in content["images"]:
        for category in (2, 4):
            found = [
                one
                for one in content["annotations"]
                if one["image_id"] == image["id"] and one["category_id"] == category
            ]
            expected = explain(model, image["file_name"], target=category)
            boxes = expected.boxes(threshold)[0]
            assert [one["bbox"] for one in found] == [
                [box.left, box.top, box.right - box.left, box.bottom - box.top] for box in boxes
            ]
            assert [one["score"] for one in found] == pytest.approx(
                [box.share for box in boxes], abs=2e-3
            )
            masks = [decoded(one["segmentation"]) for one in found]
            np.testing.assert_array_equal(np.any(masks, axis=0), expected.mask(threshold)[0])
            assert np.sum(masks, axis=0).max() == 1, "pieces do not overlap"
            assert [one["area"] for one in found] == [mask.sum() for mask in masks]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2)])
def test_run_lengths_can_be_read_back(shape):
    random = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        mask = random.random(shape) < share
        counts = run_lengths(mask)
        assert sum(counts) == mask.size and all(count > 0 for count in counts[1:])
        np.testing.assert_array_equal(decoded({"size": shape, "counts": counts}), mask)
