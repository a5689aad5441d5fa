"""Boxes around landmarks: how large, whose a voxel is, and which names they have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.landmarks.rois import as_regions, default_radius, values_of
from fewshot.volumes import Volume
from tests.unit.landmarks.made import OBLIQUE, SHAPE, at, picture, volume

SPACING = np.array([1.5, 2.0, 3.0])


def template(spread: float = 0.0, of: Volume | None = None, **voxels: tuple[float, ...]) -> LandmarkTemplate:
    scan = of or volume()
    return LandmarkTemplate(scan, {name: Mark(at(scan, *voxel), spread) for name, voxel in voxels.items()})


def offsets(voxel: tuple[float, ...]) -> np.ndarray:
    """mm along the axes of `made.volume` from a voxel to every other ``[X, Y, Z, 3]``."""
    return (np.moveaxis(np.indices(SHAPE), 0, -1) - voxel) * SPACING


@pytest.mark.parametrize("voxel", [(9.3, 7.6, 5.2), (0.2, 15.4, -0.4), (10, 8, 6)])
def test_a_box_reaches_so_far_along_every_axis(voxel):
    regions = as_regions(template(tip=voxel), {"tip": 3}, 4.4)
    np.testing.assert_array_equal(regions.labels, 3 * (np.abs(offsets(voxel)) <= 4.4).all(-1))
    assert regions.complete, "what is outside of the box is background"


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a")])
def test_where_boxes_overlap_a_voxel_belongs_to_the_nearest_landmark(order):
    voxels = {"a": (6.2, 8.1, 6.0), "b": (9.0, 8.4, 6.1), "c": (8.1, 6.0, 5.2)}
    values = {"a": 1, "b": 2, "c": 3}
    regions = as_regions(template(**{name: voxels[name] for name in order}), values, 6)
    ways = np.stack([offsets(voxels[name]) for name in values])
    distance = np.where((np.abs(ways) <= 6).all(-1), np.linalg.norm(ways, axis=-1), np.inf)
    wanted = np.where(np.isfinite(distance.min(0)), distance.argmin(0) + 1, 0)
    np.testing.assert_array_equal(regions.labels, wanted)
    assert set(np.unique(wanted)) == {0, 1, 2, 3}


@given(
    st.tuples(*(st.floats(-0.5, side - 0.5, exclude_max=True) for side in SHAPE)),
    st.floats(1e-9, 40),
)
def test_every_landmark_has_a_voxel_whatever_the_radius(voxel, radius):
    scan = volume(np.diag([1.0, 1.0, 1.0, 1.0]))
    labels = as_regions(template(of=scan, tip=voxel), {"tip": 1}, radius).labels
    nearest = tuple(np.clip(np.round(voxel), 0, np.array(SHAPE) - 1).astype(int))
    assert labels[nearest] == 1
    assert (np.array(np.nonzero(labels)).T - voxel <= max(radius, 0.5)).all()


def test_a_tiny_radius_leaves_one_voxel():
    labels = as_regions(template(a=(5.4, 5.4, 5.4), b=(0, 15, -0.4)), {"a": 1, "b": 2}, 1e-6).labels
    assert {tuple(of): labels[tuple(of)] for of in np.argwhere(labels)} == {(5, 5, 5): 1, (0, 15, 0): 2}


def test_what_was_drawn_larger_has_a_larger_box():
    place = (9.3, 7.6, 5.2)
    small, drawn, wide = (
        as_regions(template(spread, tip=place), {"tip": 1}, radius).labels
        for spread, radius in ((1.0, 4.4), (7.0, 4.4), (0.0, 7.0))
    )
    assert drawn.sum() > small.sum() > 0
    np.testing.assert_array_equal(drawn, wide)


def test_a_template_knows_what_it_marks_and_what_it_looked_for():
    scan = volume()
    of = LandmarkTemplate(
        scan, {"b": Mark(at(scan, 5, 5, 5)), "x": Mark(at(scan, 9, 9, 9))}, frozenset({"c", "y"})
    )
    regions = as_regions(of, {"a": 1, "b": 2, "c": 3}, 3)
    assert regions.names == {"b": 2, "c": 3}
    assert set(np.unique(regions.labels)) == {0, 2}, "x is no landmark of the model"
    assert regions.volume is scan


def test_values_count_the_names_of_all_templates():
    assert values_of([template(c=(1, 1, 1), a=(2, 2, 2)), template(a=(3, 3, 3), b=(1, 5, 1))]) == {
        "c": 1,
        "a": 2,
        "b": 3,
    }


def test_a_picture_has_squares():
    labels = as_regions(template(of=picture(), tip=(12, 7, 0)), {"tip": 1}, 2).labels
    assert labels.shape == (30, 20, 1)
    assert np.argwhere(labels)[:, :2].min(0).tolist() == [10, 5]
    assert labels.sum() == 25


# the radius where nobody says one


def test_the_radius_grows_with_the_image_and_not_with_its_voxels():
    def of(side: int, step: float) -> float:
        return default_radius([template(of=volume(np.diag([step] * 3 + [1]), (side,) * 3), tip=(1, 1, 1))])

    assert of(200, 2) == pytest.approx(2 * of(200, 1))
    assert of(400, 1) == pytest.approx(of(200, 2))


@pytest.mark.parametrize("shape", [(6, 6, 6), (40, 40, 3), (100, 4, 4)])
def test_by_default_a_box_is_more_than_a_voxel(shape):
    scan = volume(np.diag([0.7, 0.7, 2.5, 1]), shape)
    of = template(of=scan, tip=(3, 2, 1))
    labels = as_regions(of, {"tip": 1}, default_radius([of])).labels
    assert (np.array(labels.nonzero()).max(1) - np.array(labels.nonzero()).min(1))[:2].min() > 0
    assert labels.sum() < labels.size


def test_one_radius_serves_all_templates_and_one_odd_image_does_not_decide():
    usual = template(of=volume(np.diag([1.0, 1.0, 1.0, 1.0]), (200, 200, 200)), tip=(1, 1, 1))
    odd = template(of=volume(np.diag([9.0, 9.0, 9.0, 1.0]), (200, 200, 200)), tip=(1, 1, 1))
    assert default_radius([usual, odd, usual]) == default_radius([usual])
    assert default_radius([usual]) < default_radius([usual, odd]) < default_radius([odd])


def test_the_depth_of_a_pictures_one_slice_is_nothing():
    thin, thick = (
        default_radius([template(of=volume(np.diag([0.2, 0.2, depth, 1]), (300, 200, 1)), tip=(9, 9, 0))])
        for depth in (1e-3, 900.0)
    )
    assert thin == thick
    assert volume(OBLIQUE, (1, 1, 1)).shape == (1, 1, 1)
    assert default_radius([template(of=volume(OBLIQUE, (1, 1, 1)), tip=(0, 0, 0))]) > 0
