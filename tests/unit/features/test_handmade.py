"""Features made by hand: where they lie and what they follow."""

import numpy as np
import pytest
import torch
from skimage.feature import multiscale_basic_features

from fewshot.features import load_backbone
from fewshot.features.handmade import SCALES, MultiscaleDerivatives, derivatives


@pytest.fixture(scope="module")
def handmade():
    return MultiscaleDerivatives()


def images(height, width, count=1, seed=0):
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(64, 48), (33, 47)])
def test_there_is_a_vector_for_every_two_pixels(handmade, size):
    maps = handmade.maps(images(*size, count=2))
    assert maps.shape == (2, size[0] // 2, size[1] // 2, handmade.width)
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()


def test_four_features_at_five_scales(handmade):
    scales = len(SCALES)
    assert handmade.width == 4 * scales == 20


def test_features_move_with_the_image(handmade):
    given = images(192, 192)
    moved = torch.roll(given, (4, -6), dims=(2, 3))
    before, after = handmade.maps(given), handmade.maps(moved)
    back = torch.roll(after, (-2, 3), dims=(1, 2))
    middle = (slice(None), slice(40, 56), slice(40, 56))
    torch.testing.assert_close(back[middle], before[middle], atol=2e-3, rtol=1e-2)
    assert (before[middle] - after[middle]).abs().max() > 0.05


def test_flat_images_have_no_derivatives(handmade):
    maps = handmade.maps(torch.full((1, 1, 64, 64), 0.4))
    values = sorted(maps[0, 16, 16].tolist())
    assert values[-5:] == pytest.approx([0.4] * 5, abs=1e-3)
    assert values[:-5] == pytest.approx([0] * 15, abs=1e-3)


def test_images_do_not_depend_on_their_batch_mates(handmade):
    given = images(32, 32, count=3)
    alone = torch.cat([handmade.maps(image[None]) for image in given])
    torch.testing.assert_close(handmade.maps(given), alone, atol=1e-4, rtol=1e-3)


def test_it_is_a_backbone_by_name(handmade):
    backbone = load_backbone("handmade")
    assert (backbone.patch, backbone.dim) == (2, 20)
    assert backbone.features(images(32, 40)[:, 0]).shape == (1, 16, 20, 20)


def test_values_are_those_of_scikit_image():
    """Away from the border, before the scales' powers and the averaging."""
    given = images(96, 96)
    reference = multiscale_basic_features(given[0, 0].numpy(), sigma_min=2, sigma_max=2)
    smooth = derivatives(given, 1)[0, ..., 4]  # four features a scale: 1, then 2
    middle = (slice(24, -24), slice(24, -24))
    assert np.allclose(smooth[middle], reference[..., 0][middle], atol=2e-3)
