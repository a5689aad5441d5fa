"""Interpolation: agrees with torch's, and commutes with a linear layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import grid_sample, interpolate

from fewshot.adapters.base import PixelNetwork
from fewshot.adapters.pixels import at_points, interpolation_matrix, to_pixels


def pixel_centres(pixels: int, patches: int) -> torch.Tensor:
    return (torch.arange(pixels) + 0.5) * patches / pixels - 0.5


@pytest.mark.parametrize(("grid", "size"), [((4, 6), (32, 30)), ((1, 5), (9, 40)), ((3, 1), (7, 3))])
def test_to_pixels_is_bilinear_interpolation(grid, size):
    maps = torch.randn(2, *grid, 5)
    ys, xs = pixel_centres(size[0], grid[0]), pixel_centres(size[1], grid[1])
    expected = interpolate(maps.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(to_pixels(maps, ys, xs), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-4)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_points_are_pixels_of_the_dense_map(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(height, width, 3, generator=generator)
    ys = torch.rand(5, generator=generator) * (height + 1) - 1
    xs = torch.rand(6, generator=generator) * (width + 1) - 1
    dense = to_pixels(maps[None], ys, xs)[0]
    points = at_points(maps, ys.repeat_interleave(6), xs.repeat(5)).reshape(5, 6, 3)
    torch.testing.assert_close(points, dense, atol=1e-5, rtol=1e-4)


def test_points_agree_with_grid_sample():
    maps = torch.randn(5, 8, 4)
    ys, xs = torch.rand(50) * 4, torch.rand(50) * 7
    grid = torch.stack([(xs + 0.5) * 2 / 8 - 1, (ys + 0.5) * 2 / 5 - 1], dim=1)[None, None]
    expected = grid_sample(maps.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(at_points(maps, ys, xs), expected[0, :, 0].T, atol=1e-5, rtol=1e-4)


@given(st.lists(st.floats(-3, 12), min_size=1, max_size=20), st.integers(1, 9))
def test_interpolation_weights_sum_to_one(coordinates, patches):
    matrix = interpolation_matrix(torch.tensor(coordinates), patches)
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(coordinates)))


def test_first_layer_before_interpolation_equals_the_naive_way():
    """DESIGN: a linear layer and interpolation commute, standardisation included; equal to 1e-4."""
    torch.manual_seed(0)
    network = PixelNetwork(24, (16, 8))
    maps = 3 + 2 * torch.randn(1, 6, 5, 24)
    network.standardise(maps.flatten(0, 2))
    ys, xs = pixel_centres(48, 6), pixel_centres(40, 5)
    pixel_features = to_pixels(maps, ys, xs)
    naive = network.rest(network.first((pixel_features - network.mean) * network.scale))
    fast = network.rest(to_pixels(network.narrow(maps), ys, xs))
    assert (naive - fast).abs().max() < 1e-4
