"""Balls around landmarks: where they are, how large, and whose a voxel is."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks.balls import paint_balls
from tests.unit.landmarks.made import OBLIQUE, at, picture, prediction, volume

SHEARED = np.array([[1.0, 0.8, 0, 0], [0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED, np.diag([-1.0, -1.0, 4.0, 1.0])])
def test_a_ball_holds_what_is_near(affine):
    scan = volume(affine)
    centre, radius = at(scan, 9.3, 7.6, 5.2), 4.5
    labels = paint_balls(prediction(scan, a=centre), radius, {"a": 3})
    voxels = np.moveaxis(np.indices(scan.shape), 0, -1).reshape(-1, 3)
    places = voxels @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(places - centre, axis=1) <= radius
    assert inside.any()
    np.testing.assert_array_equal(labels.ravel(), 3 * inside)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_nearest_centre_wins(order):
    scan = volume(np.eye(4))
    points = {"a": at(scan, 6, 8, 6), "b": at(scan, 11, 8, 6)}
    labels = paint_balls(prediction(scan, **{name: points[name] for name in order}), 4, {"a": 1, "b": 2})
    assert labels[4:14, 8, 6].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_a_ball_smaller_than_a_voxel_and_one_at_the_border():
    scan = volume()
    labels = paint_balls(
        prediction(scan, a=at(scan, 5.4, 5.4, 5.4), b=at(scan, 0, 15, -0.4)), 0.01, {"a": 1, "b": 2}
    )
    assert np.argwhere(labels).tolist() == [[0, 15, 0], [5, 5, 5]]


def test_what_was_not_found_or_has_no_value_is_not_painted():
    scan = volume()
    found = prediction(scan, a=at(scan, 5, 5, 5), b=None, c=at(scan, 9, 9, 9))
    assert set(np.unique(paint_balls(found, 3, {"a": 1, "b": 2}))) == {0, 1}
    assert not paint_balls(prediction(scan, b=None), 3, {"b": 2}).any()


def test_more_than_255_landmarks():
    scan = volume(np.eye(4))
    points = {f"p{n}": at(scan, n % 20, n // 20 % 16, 3 * (n // 320)) for n in range(400)}
    labels = paint_balls(prediction(scan, **points), 0.4, {name: n for n, name in enumerate(points, start=1)})
    assert labels.dtype == np.uint16
    assert np.unique(labels).tolist() == list(range(401))


def test_a_picture_has_discs():
    image = picture()
    labels = paint_balls(prediction(image, a=(-12.0, -7.0, 0.0)), 2, {"a": 1})
    assert labels.shape == (30, 20, 1)
    assert labels[12, 5:10, 0].tolist() == [1] * 5
    assert labels.sum() == 13


@pytest.mark.parametrize("radius", [0, -1, float("nan"), float("inf")])
def test_a_radius_is_a_length(radius):
    with pytest.raises(FewshotError, match="radius"):
        paint_balls(prediction(volume()), radius, {})
