"""A map lies on the pixels that its patches were cut from: margins, padding, unequal axes.

The authority is the network itself: a pixel belongs to the patch whose embedding it changes.
"""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from helpers import left_as_it_was, redraw, small_vit
from matplotlib import pyplot
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import Compose, Resize, ToTensor

from rollout import audit, explain, wrap_model
from rollout.explorer.browser.canvas import MapCanvas
from rollout.explorer.figure import plot_frame
from rollout.explorer.frame import main_frame
from rollout.explorer.sources import open_session
from rollout.explorer.view import View
from rollout.maths.placement import shares, stretch, under_grid
from rollout.models.preprocess import default_transform
from rollout.plots.maps import plot_overlay


def model_of(height: int, width: int, **options: object):
    network = small_vit(img_size=(height, width), **options)
    return wrap_model(network, transform=Compose([Resize((height, width)), ToTensor()]))


class Padded(nn.Module):
    """Patches behind a border: `border` pixels left and top, by F.pad or by the convolution."""

    def __init__(self, border: int, inside: bool, stride: int = 8, kernel: int = 8) -> None:
        super().__init__()
        self.border = 0 if inside else border
        self.vit = small_vit(img_size=(32, 48), num_classes=4)
        self.vit.patch_embed.strict_img_size = False
        self.vit.patch_embed.proj = nn.Conv2d(
            3, 24, kernel, stride, padding=border if inside else 0
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vit(F.pad(images, (self.border,) * 4))


def pixels_of_patches(network: nn.Module, embed: nn.Module, size: tuple[int, int]) -> torch.Tensor:
    """For each pixel the patch whose embedding it changes most, -1 for none; (height, width)."""
    made = {}
    hook = embed.register_forward_hook(lambda *call: made.update(grid=call[2]))
    images = torch.zeros(1, 3, *size, requires_grad=True)
    network(images)
    hook.remove()
    grid = made["grid"].square().sum(dim=1).flatten() + made["grid"].sum(dim=1).flatten()
    reached = [torch.autograd.grad(one, images, retain_graph=True)[0] for one in grid]
    strength = torch.stack([gradient.abs().sum(dim=(0, 1)) for gradient in reached])
    return strength.argmax(dim=0).where(strength.amax(dim=0) > 0, -1)


CASES = {
    "fits": (lambda: small_vit(img_size=(32, 48)), (32, 48), None),
    "margin": (lambda: small_vit(img_size=(37, 53)), (37, 53), (0, 0, 32, 48)),
    "margin below": (lambda: small_vit(img_size=(39, 48)), (39, 48), (0, 0, 32, 48)),
    "padding": (
        lambda: small_vit(img_size=(32, 48), dynamic_img_size=True, dynamic_img_pad=True),
        (27, 43),
        (0, 0, 32, 48),
    ),
    "border": (lambda: Padded(4, inside=False), (24, 40), (-4, -4, 28, 44)),
    "padded convolution": (lambda: Padded(4, inside=True), (24, 40), (-4, -4, 28, 44)),
    "gaps": (lambda: Padded(0, inside=True, kernel=4), (32, 48), (-2, -2, 30, 46)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_grid_lies_where_the_network_cut_the_image(case: str) -> None:
    make, size, extent = CASES[case]
    network = redraw(make()).eval()
    model = wrap_model(network, transform=Compose([Resize(size), ToTensor()]))
    assert model.layout.extent == extent and model.layout.grid_size == (4, 6)
    numbered = torch.arange(24.0).view(1, 4, 6)
    embed = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    patches = pixels_of_patches(network, embed, size)
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    top, left, bottom, right = extent or (0, 0, *size)
    down = ((rows - top) / (bottom - top) * 4).floor().long()
    across = ((columns - left) / (right - left) * 6).floor().long()
    inside = (down >= 0) & (down < 4) & (across >= 0) & (across < 6)
    expected = (6 * down + across).where(inside, -1)
    seen = patches >= 0  # between patches with gaps there are pixels that nobody sees
    assert_close(expected[seen], patches[seen])
    on_pixels = stretch(numbered, size, extent, size)[0]
    assert (on_pixels[~inside] == 0).all()
    assert (on_pixels - expected)[inside].abs().max() <= 3.5  # half a row and half a column


def test_a_stretched_map_keeps_every_patch_in_its_place() -> None:
    maps = torch.rand(2, 4, 6)
    assert_close(stretch(maps, (4, 6), (0, 0, 32, 48), (32, 48)), maps)
    whole = stretch(maps, (64, 96))
    assert_close(stretch(maps, (64, 96), (0, 0, 32, 48), (32, 48)), whole)
    with_margin = stretch(maps, (74, 106), (0, 0, 32, 48), (37, 53))
    assert_close(with_margin[:, :64, :96], whole)
    assert (with_margin[:, 64:] == 0).all() and (with_margin[:, :, 96:] == 0).all()
    beyond = stretch(maps, (54, 86), (0, 0, 32, 48), (27, 43))
    assert_close(beyond, whole[:, :54, :86])
    shifted = stretch(maps, (24, 40), (-4, -4, 28, 44), (24, 40))
    assert_close(shifted, stretch(maps, (32, 48))[:, 4:28, 4:44])


def test_masks_are_cut_as_the_image_is() -> None:
    masks = torch.rand(2, 37, 53)
    assert torch.equal(under_grid(masks, None), masks)
    assert torch.equal(under_grid(masks, (0, 0, 32, 48)), masks[:, :32, :48])
    beyond = under_grid(masks, (-4, 0, 40, 56))
    assert torch.equal(beyond[:, 4:41, :53], masks) and beyond.shape == (2, 44, 56)
    assert beyond[:, :4].sum() == 0 and beyond[..., 53:].sum() == 0


@pytest.mark.parametrize("size", [(37, 53), (32, 48)])
def test_pictures_lay_the_map_there(size: tuple[int, int]) -> None:
    model = model_of(*size)
    with left_as_it_was(model.network):
        explanation = explain(model, torch.rand(2, 3, *size), target=1)
    extent = None if size == (32, 48) else (0, 0, 32, 48)
    assert explanation.extent == extent
    saliency = explanation.saliency_map()
    assert saliency.shape == (2, *size) and (saliency[:, 32:] == 0).all()
    assert explanation.saliency_map((size[0] * 2, size[1] * 2))[:, 64:].sum() == 0
    mask = explanation.mask()
    assert mask.any() and not mask[:, 32:].any() and not mask[..., 48:].any()
    for boxes in explanation.boxes():
        edges = {(box.left % 8, box.top % 8, box.right % 8, box.bottom % 8) for box in boxes}
        assert edges == {(0, 0, 0, 0)}
    overlay = explanation.plot().axes[1].images[-1]
    assert overlay.get_extent() == [-0.5, 47.5, 31.5, -0.5]
    assert overlay.axes.get_xlim() == (-0.5, size[1] - 0.5)
    assert overlay.axes.get_ylim() == (size[0] - 0.5, -0.5)


def test_the_explorer_lays_it_there_and_counts_masks_there() -> None:
    model = model_of(40, 53)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 53, 3), np.uint8))
    mask = np.zeros((40, 53), bool)
    mask[:8, 48:] = True  # in the margin: no patch has any of it
    session = open_session(model, picture, {"margin": mask, "corner": ~mask})
    assert session.coverage["margin"].sum() == 0 and session.coverage["corner"].min() == 1
    frame = main_frame(session, View("x", "y", target=1))
    assert frame.extent == (0, 0, 40, 48)
    canvas = MapCanvas()
    canvas.show_picture(session.picture())
    canvas.show(frame)
    assert canvas.frame["extent"] == (0, 0, 1, 48 / 53)
    figure = plot_frame(frame, session.picture())
    assert [ax.images[-1].get_extent() for ax in figure.axes[:2]] == [[-0.5, 47.5, 39.5, -0.5]] * 2
    traced = main_frame(session, View("x", "y", target=1), hover=(1, 5))
    box = plot_frame(traced, session.picture()).axes[0].patches[0]
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((39.5, 7.5), 8, 8)


def test_the_audit_outlines_the_patch_where_it_was_cut() -> None:
    model = model_of(37, 53)
    found = audit(model, torch.rand(1, 3, 37, 53))
    row, column = found.patches[0, 0].tolist()
    boxes = {one.get_xy() for one in found.plot().axes[0].patches}
    assert (8 * column - 0.5, 8 * row - 0.5) in boxes
    assert all((x + 0.5) % 8 == (y + 0.5) % 8 == 0 for x, y in boxes)


def test_shares_and_a_bare_overlay() -> None:
    assert shares(None, (30, 40)) == (0, 0, 1, 1)
    assert shares((-3, 4, 33, 36), (30, 40)) == (-0.1, 0.1, 1.1, 0.9)
    _, ax = pyplot.subplots()
    plot_overlay(np.ones((30, 40, 3)), np.eye(3), ax=ax, extent=(-3, 4, 33, 36))
    assert ax.images[-1].get_extent() == [3.5, 35.5, 32.5, -3.5]
    assert ax.get_ylim() == (29.5, -0.5)
    pyplot.close()


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip_prepares_images_as_open_clip_does(mode: str) -> None:
    network, _, own = open_clip.create_model_and_transforms(
        "ViT-S-32-alt", pretrained=None, image_resize_mode=mode
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 200, 3), np.uint8))
    assert torch.equal(default_transform(network)(picture), own(picture))
    assert default_transform(network, (64, 96))(picture).shape == (3, 64, 96)
