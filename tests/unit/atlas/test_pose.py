"""A template is tried in every pose: the right one is among the first, with the shift that suits it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot.atlas.images import to_image
from fewshot.atlas.pose import rotation_of, turned
from fewshot.atlas.template import frame
from fewshot.volumes import Volume
from tests.unit.landmarks.textured import body, picture, rotation

REACH = 25
"""Degrees that registration makes good."""
LPS = np.diag([-1.0, -1.0, 1.0])


def image_of(volume: Volume) -> sitk.Image:
    return to_image(volume.array / volume.array.max(), frame(volume))


@cache
def template() -> sitk.Image:
    return image_of(body())


@cache
def picture_of_template() -> sitk.Image:
    return image_of(picture()[0])


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees between two rotations."""
    between = one @ other.T
    if len(between) == 2:
        return float(np.degrees(abs(np.arctan2(between[1, 0], between[0, 0]))))
    return float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))))


SHIFT = np.array([6.0, -5.0, 8.0])
POSES = {
    "90 degrees about x": rotation(90, (1, 0, 0)),
    "90 degrees about z": rotation(90, (0, 0, 1)),
    "180 degrees about x": rotation(180, (1, 0, 0)),
    "180 degrees about y": rotation(180, (0, 1, 0)),
    "150 degrees about an oblique axis": rotation(150, (1, 2, 0.5)),
}


@cache
def query(name: str) -> sitk.Image:
    return image_of(body(POSES[name], SHIFT, shape=(44, 44, 44), seed=2))


@cache
def tried(name: str) -> list[sitk.AffineTransform]:
    return turned(query(name), template(), 6)


@pytest.mark.parametrize("name", POSES)
def test_the_right_rotation_is_among_the_first(name):
    wanted = LPS @ POSES[name].T @ LPS
    off = [angle(rotation_of(of), wanted) for of in tried(name)[:4]]
    best = int(np.argmin(off))
    assert off[best] < REACH
    middle = np.array(tried(name)[best].TransformPoint((LPS @ SHIFT).tolist()))
    assert np.linalg.norm(middle) < 10, "mm: the middle of the body comes to lie on its middle, of 68 mm"


def test_grids_of_other_axes_and_spacings_show_the_same_pose():
    pose = rotation(120, (1, -1, 0.3))
    grid = {"shape": (50, 40, 26), "spacing": (1.8, 2.2, 3.5), "turn": rotation(70, (0, 1, 1)), "at": SHIFT}
    found = turned(image_of(body(pose, SHIFT, **grid)), template(), 4)
    assert min(angle(rotation_of(of), LPS @ pose.T @ LPS) for of in found) < REACH


def test_a_part_of_the_body_is_enough():
    pose = rotation(180, (0, 1, 0))
    part = image_of(body(pose, shape=(24, 34, 28), at=(-12, 0, 0), seed=2))
    found = turned(part, template(), 16)
    assert min(angle(rotation_of(of), LPS @ pose.T @ LPS) for of in found) < REACH


@pytest.mark.parametrize("degrees", [0, 90, 180, 215])
def test_pictures_are_turned_in_their_plane(degrees):
    shift = np.array([4.0, -6.0])
    best, *_ = turned(image_of(picture(degrees, shift, seed=3)[0]), picture_of_template(), 3)
    assert angle(rotation_of(best), rotation(-degrees)[:2, :2]) < 10
    middle = (64 - 1) / 2
    said = best.TransformPoint((middle + shift).tolist())
    np.testing.assert_allclose(said, [middle, middle], atol=5)


def test_there_are_as_many_as_asked_for_all_rigid_and_apart():
    of_picture = turned(image_of(picture(40)[0]), picture_of_template(), 6)
    for found, dimension in ((tried("90 degrees about z"), 3), (of_picture, 2)):
        assert len(found) == 6
        for transform in found:
            matrix = np.array(transform.GetMatrix()).reshape(dimension, dimension)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(dimension), atol=1e-6)
            assert np.linalg.det(matrix) == pytest.approx(1), "no mirror image"
        apart = [angle(rotation_of(a), rotation_of(b)) for i, a in enumerate(found) for b in found[:i]]
        assert min(apart) > 10


def test_the_same_images_give_the_same_poses_and_fewer_are_the_first_of_more():
    name = "90 degrees about z"
    again = turned(query(name), template(), 2)
    assert len(again) == 2
    for one, other in zip(again, tried(name), strict=False):
        assert one.GetParameters() == other.GetParameters()
        assert one.GetFixedParameters() == other.GetFixedParameters()


def test_there_are_no_more_poses_than_there_are():
    found = turned(image_of(picture(40)[0]), picture_of_template(), 10_000)
    assert 10 < len(found) < 100


@pytest.mark.parametrize("degrees", [0, 20, 135])
def test_the_rotation_of_a_stretched_map_is_its_rotation(degrees):
    wanted = rotation(degrees, (1, 1, 0.5))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((np.diag([1.2, 1.2, 1.2]) @ wanted).ravel().tolist())
    np.testing.assert_allclose(rotation_of(transform), wanted, atol=1e-9)
    transform.SetMatrix((wanted @ np.diag([1.2, 0.8, 1.1])).ravel().tolist())
    np.testing.assert_allclose(rotation_of(transform), wanted, atol=1e-9)
