"""Landmarks carried over by a registration: the inverse of its map, and the map's own slopes around them."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.atlas import Registered
from fewshot.landmarks.carrying import carry
from tests.unit.landmarks.textured import rotation

SHAPE, SPACING = np.array([60, 50, 40]), np.array([1.5, 2.0, 2.5])
"""Of the template."""
QUERY = np.array([3.0, 2.0, 4.0])
"""Spacing of the query."""
SIDES = np.array([30, 40, 24])
MIDDLE = (SHAPE - 1) / 2 * SPACING
POINTS = MIDDLE + np.array([[0, 0, 0], [9.3, -7.2, 5.5], [-11, 4, -8]])


def registered(matrix: np.ndarray, shift: np.ndarray, *, low=(0, 0, 0), high=SIDES, coarser=1) -> Registered:
    """A map from mm of a query, ``matrix @ mm + shift``, on a grid over a box of it."""
    low, high = np.array(low), np.array(high)
    sides = np.maximum((high - low) // coarser, 1)
    ratio = (high - low) / sides
    axes = [
        (np.arange(n) + 0.5) * step + first - 0.5 for n, step, first in zip(sides, ratio, low, strict=True)
    ]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    places = ((voxels * QUERY) @ matrix.T + shift) / SPACING
    return Registered(((places + 0.5) / SHAPE).astype(np.float32), low, high, 1.0)


def centred(matrix: np.ndarray) -> np.ndarray:
    """The shift with which the middle of the query lies on that of the template."""
    return MIDDLE - matrix @ ((SIDES - 1) / 2 * QUERY)


def carried(points: np.ndarray, of: Registered) -> list:
    return carry(points, of, template=(SHAPE, SPACING), query=(SIDES, QUERY))


MAPS = {
    "shift": np.eye(3),
    "turned": rotation(30, (1, 2, -1)),
    "turned round": rotation(170, (0, 1, 2)),
    "smaller": 0.8 * np.eye(3),
    "stretched": np.diag([1.2, 0.9, 1.05]) @ rotation(20),
    "axes swapped": np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    "mirrored": np.diag([-1.0, 1, 1]),
    "sheared": np.array([[1, 0.3, 0], [0, 1, 0.1], [0, 0, 1.0]]),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("coarser", [1, 2])
def test_points_and_directions_are_those_of_an_affine_map(name, coarser):
    matrix = MAPS[name]
    shift = np.add(centred(matrix), [2.0, -3.0, 1.0])
    for point, found in zip(POINTS, carried(POINTS, registered(matrix, shift, coarser=coarser)), strict=True):
        np.testing.assert_allclose(found.place, np.linalg.solve(matrix, point - shift), atol=1e-3)
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-4)


def test_an_image_registered_with_itself_moves_nothing():
    places = (np.moveaxis(np.indices(SHAPE), 0, -1) + 0.5) / SHAPE
    of = Registered(places.astype(np.float32), np.zeros(3, int), SHAPE, 1.0)
    for point, found in zip(
        POINTS, carry(POINTS, of, template=(SHAPE, SPACING), query=(SHAPE, SPACING)), strict=True
    ):
        np.testing.assert_allclose(found.place, point, atol=1e-3)
        np.testing.assert_allclose(found.matrix, np.eye(3), atol=1e-4)


def test_a_grid_over_a_part_of_the_query_gives_places_in_the_whole():
    shift = centred(np.eye(3))
    of = registered(np.eye(3), shift, low=(9, 12, 6), high=(22, 28, 18))
    (found,) = carried(POINTS[:1], of)
    np.testing.assert_allclose(found.place, POINTS[0] - shift, atol=1e-3)


def test_a_landmark_a_little_beyond_the_registered_part_is_carried_on():
    """That part is where the landmarks were expected; the query goes on behind it."""
    shift = centred(np.eye(3))
    of = registered(np.eye(3), shift, low=(9, 12, 6), high=(22, 28, 18))
    beyond, far = (np.array([steps, 20, 12]) * QUERY for steps in (24, 29))
    found, lost = carried(np.array([beyond, far]) + shift, of)
    np.testing.assert_allclose(found.place, beyond, atol=1e-3)
    assert lost is None, "nobody knows how the map goes on"


def test_what_the_query_does_not_show_is_not_carried():
    """The query begins in the middle of the template, and its grid ends there."""
    of = registered(np.eye(3), MIDDLE)
    cell = QUERY.max()
    inside, border, outside = (np.add(MIDDLE, way) for way in ([20, 20, 20], [-1, 0, 0], [-4 * cell, 0, 0]))
    first, second, third = carried(np.array([inside, border, outside]), of)
    np.testing.assert_allclose(first.place, [20, 20, 20], atol=1e-3)
    np.testing.assert_allclose(second.place, [-1, 0, 0], atol=1e-3)
    assert third is None


@pytest.mark.parametrize("matrix", [np.eye(3), MAPS["turned"], MAPS["axes swapped"]])
def test_slices_may_be_much_farther_apart_than_pixels(matrix):
    """A landmark between two slices has all its nearest pixels in one of them, which tell nothing across."""
    sides, spacing = np.array([40, 40, 7]), np.array([1.0, 1.0, 12.0])
    shift = MIDDLE - matrix @ ((sides - 1) / 2 * spacing)
    places = ((np.moveaxis(np.indices(sides), 0, -1) * spacing) @ matrix.T + shift) / SPACING
    of = Registered(((places + 0.5) / SHAPE).astype(np.float32), np.zeros(3, int), sides, 1.0)
    wanted = np.array([[20.2, 18.7, 36.0], [12.0, 25.5, 42.0], [28.1, 9.3, 23.0]])
    points = wanted @ matrix.T + shift
    for place, found in zip(
        wanted, carry(points, of, template=(SHAPE, SPACING), query=(sides, spacing)), strict=True
    ):
        np.testing.assert_allclose(found.place, place, atol=1e-3)
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-3)


def test_a_smooth_map_is_followed_where_the_landmark_lies():
    matrix, shift = rotation(12, (0, 1, 1)), centred(rotation(12, (0, 1, 1)))
    of = registered(matrix, shift)
    there = (of.places * SHAPE - 0.5) * SPACING
    wave = 2 * np.sin(there[..., [1, 2, 0]] / 12)
    of = Registered(
        (((there + wave) / SPACING + 0.5) / SHAPE).astype(np.float32), of.low, of.high, of.similarity
    )
    for point, found in zip(POINTS, carried(POINTS, of), strict=True):
        unwaved = point.copy()
        for _ in range(50):
            unwaved = point - 2 * np.sin(unwaved[[1, 2, 0]] / 12)
        wanted = np.linalg.solve(matrix, unwaved - shift)
        assert np.linalg.norm(found.place - wanted) < 0.5, "a sixth of a voxel"
        assert np.linalg.norm(found.place - np.linalg.solve(matrix, point - shift)) > 0.5
        slopes = np.eye(3)
        for row, column in enumerate([1, 2, 0]):
            slopes[row, column] += 2 / 12 * np.cos(unwaved[column] / 12)
        assert np.abs(found.matrix - slopes @ matrix).max() < 0.1


def test_a_map_that_folds_everything_into_a_plane_carries_nothing():
    flat = np.diag([1.0, 1.0, 0.0])
    assert carried(POINTS[:1], registered(flat, centred(flat))) == [None]


def test_pictures_move_in_their_plane():
    turn = rotation(40)
    sides, spacing = np.array([50, 40, 1]), np.array([0.5, 0.5, 1.0])
    voxels = np.moveaxis(np.indices(sides), 0, -1) * spacing
    shift = np.array([9.0, -3.0, 0.0])
    places = (voxels @ turn.T + shift) / spacing
    of = Registered(((places + 0.5) / sides).astype(np.float32), np.zeros(3, int), sides, 1.0)
    point = turn @ [11.3, 8.1, 0] + shift
    (found, far) = carry(
        np.stack([point, np.add(point, [100, 0, 0])]), of, template=(sides, spacing), query=(sides, spacing)
    )
    np.testing.assert_allclose(found.place, [11.3, 8.1, 0], atol=1e-3)
    np.testing.assert_allclose(found.matrix, turn, atol=1e-4)
    assert far is None
