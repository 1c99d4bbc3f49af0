"""A second opinion: where Quantus (Hedström et al., 2023) has a measure too, it finds the same."""

import numpy as np
import pytest
import torch
from helpers import small_vit
from torch.testing import assert_close
from torchvision import transforms

from rollout import wrap_model
from rollout.comparison import removal
from rollout.comparison.candidates import RANDOM, Candidate, random_map
from rollout.comparison.cases import Cases
from rollout.comparison.plan import Plan
from rollout.maths.metrics import mass_on_object, peak_on_object

quantus = pytest.importorskip(
    "quantus", reason="Quantus is not installed beside the pinned versions"
)
BATCH, GRID = 6, (4, 6)
pytestmark = pytest.mark.filterwarnings("ignore")  # Quantus's own


@pytest.fixture
def maps():
    return torch.rand(BATCH, *GRID, dtype=torch.float64)


@pytest.fixture
def masks():
    return torch.rand(BATCH, *GRID) > 0.6


def asked(metric, maps, masks=None, network=None, images=None, **more):
    """A metric of Quantus on a batch."""
    given = {"x_batch": np.zeros((BATCH, 1, *GRID)), "y_batch": np.zeros(BATCH, int)}
    if images is not None:
        given["x_batch"] = images.numpy()
    if masks is not None:
        given["s_batch"] = masks[:, None].numpy()
    return metric(model=network, a_batch=maps[:, None].numpy(), **given | more)


QUIET = {"disable_warnings": True, "display_progressbar": False}
AS_IT_IS = {"abs": False, "normalise": False, **QUIET}


def test_the_pointing_game(maps, masks):
    found = asked(quantus.PointingGame(**AS_IT_IS), maps, masks)
    assert [bool(hit) for hit in found] == peak_on_object(maps, masks.float()).tolist()
    assert 0 < sum(found) < BATCH


def test_relevance_mass_accuracy(maps, masks):
    found = asked(quantus.RelevanceMassAccuracy(**AS_IT_IS), maps, masks)
    assert_close(torch.tensor(found), mass_on_object(maps, masks.double()), atol=1e-9, rtol=1e-6)


def test_pixel_flipping(monkeypatch):
    """Deletion of pixels, 64 at a time; the maps are noise, without ties."""
    network = small_vit()
    # Without normalisation black is 0, and probabilities are a softmax, as in Quantus.
    shrink = transforms.Compose([transforms.Resize((32, 48)), transforms.ToTensor()])
    model = wrap_model(network, transform=shrink, labels=list("abcdefg"))
    images, targets = torch.rand(BATCH, 3, 32, 48), torch.arange(BATCH)
    steps = tuple(number / 24 for number in range(1, 24))  # 64 pixels each
    cases = Cases(
        tuple(f"image {number}" for number in range(BATCH)),
        tuple(range(BATCH)),
        images,
        targets[None],
        torch.ones(1, BATCH, dtype=torch.bool),
        torch.ones(1, BATCH, 32, 48),
    )
    noise = random_map(torch.empty(BATCH, 32, 48), cases.seeds)
    monkeypatch.setattr(removal, "all_maps", lambda *_, **__: [{(RANDOM, ""): noise}])
    monkeypatch.setattr(removal, "stretch", lambda made, *_: made)
    plan = Plan(None, (Candidate("raw_attention"),), {"pixels": BATCH}, BATCH, steps)
    ours = removal.measure_pixels(model, plan, cases).table()
    ours = ours[(ours["measure"] == "deletion curve, pixels") & (ours["step"] > 0)]
    ours = ours.pivot(index="image", columns="step", values="value").to_numpy()
    # It counts the three channels of a pixel.
    flipping = quantus.PixelFlipping(features_in_step=3 * 64, perturb_baseline=0.0, **AS_IT_IS)
    theirs = asked(
        flipping, noise, network=network, images=images, y_batch=targets.numpy(), softmax=True
    )
    np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-5)
    assert np.ptp(ours) > 0.05
