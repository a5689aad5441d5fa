"""Textures: what surrounds a landmark in its template, seen along other axes, and how alike two places are."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.landmarks.texture import HALF, SCALES, Textures, likeness, offsets, sampled
from tests.unit.landmarks.textured import POINTS, SHAPE, SPACING, body, picture, rotation

FINEST = len(SCALES) - 1
GREY = 1 / 255


@cache
def image() -> np.ndarray:
    array = body(noise=0).array.astype(np.float64)
    return (array - array.min()) / (array.max() - array.min())


def points(*names: str) -> np.ndarray:
    middle = (np.array(SHAPE) - 1) / 2 * SPACING
    return np.array([POINTS[name] + middle for name in names or POINTS])


@pytest.fixture(scope="module")
def textures() -> Textures:
    return Textures.around(image(), np.array(SPACING), points(), SPACING[0])


def test_between_voxels_values_are_linear():
    spacing = np.array([2.0, 1.0, 3.0])
    ramp = np.einsum("a,axyz->xyz", [0.01, 0.02, -0.03], np.indices((9, 8, 7)) * spacing[:, None, None, None])
    places = np.random.default_rng(0).uniform(0, [16, 7, 18], (5, 4, 3))
    np.testing.assert_allclose(sampled(ramp, spacing, places), places @ [0.01, 0.02, -0.03])


def test_outside_of_an_image_it_is_black():
    places = np.array([[-3.0, 2, 2], [2, 30, 2], [2, 2, 2]])
    assert sampled(np.ones((5, 5, 5)), np.ones(3), places).tolist() == [0, 0, 1]


def test_a_grid_lies_around_nothing():
    grid = offsets(2, 1.5, flat=False)
    assert grid.shape == (5, 5, 5, 3)
    assert grid[2, 2, 2].tolist() == [0, 0, 0]
    assert grid[4, 2, 1].tolist() == [3, 0, -1.5]
    assert offsets(2, 1.5, flat=True).shape == (5, 5, 1, 3)
    assert not offsets(2, 1.5, flat=True)[..., 2].any()


@pytest.mark.parametrize("scale", range(len(SCALES)))
def test_along_the_templates_own_axes_it_is_the_template(textures, scale):
    for row, point in enumerate(points()):
        wanted = sampled(
            image(), np.array(SPACING), point + offsets(3, textures.step * SCALES[scale], flat=False)
        )
        np.testing.assert_allclose(textures.seen(scale, row, np.eye(3), 3), wanted, atol=GREY)


MATRICES = {
    "quarter turn": rotation(90),
    "oblique": rotation(35, (1, -2, 1)),
    "smaller": 0.7 * np.eye(3),
    "stretched and turned": np.diag([1.1, 0.9, 1]) @ rotation(120, (1, 1, 1)),
    "mirrored": np.diag([1.0, -1, 1]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_along_a_querys_axes_it_is_what_a_query_in_that_pose_shows(textures, name):
    matrix = MATRICES[name]
    for row, point in enumerate(points()):
        exact = sampled(image(), np.array(SPACING), point + offsets(4, textures.step, flat=False) @ matrix.T)
        seen = textures.seen(FINEST, row, matrix, 4)
        assert np.abs(seen - exact).mean() < 0.02
        other = textures.seen(FINEST, row, np.eye(3), 4)
        assert np.abs(seen - exact).mean() < 0.5 * np.abs(other - exact).mean(), "unlike the unturned one"


def test_scales_show_the_same_middle_and_more_or_less_around_it(textures):
    assert textures.cubes.shape[:3] == (len(SCALES), len(POINTS), 2 * HALF + 1)
    middle = textures.cubes[:, :, HALF, HALF, HALF]
    np.testing.assert_array_equal(middle, np.broadcast_to(middle[FINEST], middle.shape))
    coarse = [index for index, of in enumerate(SCALES) if of == 2.0]
    for index in coarse:
        np.testing.assert_array_equal(
            textures.cubes[index][:, HALF - 4 : HALF + 5, HALF, HALF],
            textures.cubes[FINEST][:, HALF - 8 : HALF + 9 : 2, HALF, HALF],
        )


def test_a_pictures_surroundings_are_flat():
    volume, places = picture()
    array = volume.array / volume.array.max()
    pixels = np.array([[-x, -y, 0] for x, y, _ in places.values()])
    textures = Textures.around(array, np.ones(3), pixels, 1.0)
    assert textures.cubes.shape[-1] == 1
    turn = rotation(60)
    seen = textures.seen(FINEST, 0, turn, 4)
    assert seen.shape == (9, 9, 1)
    exact = sampled(array, np.ones(3), pixels[0] + offsets(4, 1.0, flat=True) @ turn.T)
    assert np.abs(seen - exact).mean() < 0.02


# how alike


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("flat", [False, True])
def test_a_pattern_is_found_where_it_was_taken_from(flat):
    depth = 1 if flat else 17
    region = noise(20, 18, depth)
    pattern = region[7:14, 3:10, :] if flat else region[7:14, 3:10, 4:11]
    alike = likeness(region, pattern)
    assert alike.shape == (14, 12, 1 if flat else 11)
    assert np.unravel_index(alike.argmax(), alike.shape) == (7, 3, 0 if flat else 4)
    assert alike.max() == pytest.approx(1, abs=1e-4)


@given(st.floats(0.05, 20), st.floats(-3, 3), st.integers(0, 99))
def test_brightness_and_contrast_do_not_matter_and_a_negative_is_the_opposite(contrast, brightness, seed):
    region, pattern = noise(13, 12, 11, seed=seed), noise(7, 7, 7, seed=seed + 1)
    alike = likeness(region, pattern)
    assert np.abs(alike).max() <= 1 + 1e-4
    np.testing.assert_allclose(likeness(region, pattern * contrast + brightness), alike, atol=1e-3)
    np.testing.assert_allclose(likeness(region * contrast + brightness, pattern), alike, atol=1e-3)
    np.testing.assert_allclose(likeness(region, -pattern), -alike, atol=1e-3)


def test_the_opposite_of_a_pattern_is_minus_one():
    region = noise(9, 9, 9)
    assert likeness(region, -region[1:8, 1:8, 1:8])[1, 1, 1] == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("depth", [1, 11])
def test_what_has_no_contrast_is_like_nothing(depth):
    side = min(depth, 5)
    textured, plain = noise(11, 11, depth), np.full((11, 11, depth), 0.4)
    for region, pattern in ((textured, plain[:5, :5, :side]), (plain, textured[:5, :5, :side])):
        alike = likeness(region, pattern)
        assert alike.shape == (7, 7, depth - side + 1)
        assert not alike.any()


def test_a_black_border_is_no_number_less():
    region = noise(15, 15, 15)
    region[8:] = 0
    assert np.isfinite(likeness(region, noise(5, 5, 5, seed=1))).all()
