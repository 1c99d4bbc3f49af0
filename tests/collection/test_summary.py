"""What a whole collection looks like: means by class, and the pictures behind its rows."""

import numpy as np
import pytest

from rollout import collect
from rollout.collection.summary import average_maps, pictures_of
from rollout.collection.table import map_of
from rollout.plots.contact_sheet import plot_contact_sheet


@pytest.fixture
def table(model, photos, tmp_path):
    (photos / "0003.png").write_bytes(b"")
    options = {"workers": 0, "progress": False, "targets": ["predicted", "dog"]}
    return collect(model, photos, tmp_path / "maps", **options).table()


def test_means_are_of_maps_that_weigh_the_same(table):
    means = average_maps(table)
    sizes = table[table["error"].isna()].groupby("label").size()
    assert set(means) == set(sizes.index) and list(means)[0] == "dog"
    for label, mean in means.items():
        maps = [map_of(row) for _, row in table[table["label"] == label].iterrows()]
        expected = sum(one / one.sum() for one in maps) / len(maps)
        np.testing.assert_allclose(mean, expected, rtol=1e-5)
        assert mean.shape == (4, 6) and mean.sum() == pytest.approx(1)


def test_maps_of_two_sizes_have_no_mean(table):
    table.loc[table["label"] == "dog", ["rows", "columns"]] = [6, 4]
    table.loc[table.index[table["label"] == "dog"][0], ["rows", "columns"]] = [4, 6]
    with pytest.raises(ValueError, match="'dog' have different sizes"):
        average_maps(table)


def test_pictures_are_what_the_network_saw(model, table):
    chosen = table[table["error"].isna()].head(3)
    for picture, path in zip(pictures_of(model, chosen), chosen["path"], strict=True):
        np.testing.assert_array_equal(picture, model.pictures(model.images(path))[0].numpy())


def test_a_contact_sheet_has_a_panel_for_each(model, table):
    chosen = table[table["error"].isna()].head(5)
    maps = [map_of(row) for _, row in chosen.iterrows()]
    titles = [str(number) for number in range(5)]
    figure = plot_contact_sheet(pictures_of(model, chosen), maps, titles, columns=3)
    assert [ax.get_title() for ax in figure.axes] == [*titles, ""]
    shown = [ax.get_images()[1].get_array() for ax in figure.axes[:5]]
    for values, expected in zip(shown, maps, strict=True):
        np.testing.assert_array_equal(values, expected)
