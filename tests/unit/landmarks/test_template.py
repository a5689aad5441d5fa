"""Templates: what is a landmark of an image, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate, Mark, landmark_names
from fewshot.landmarks.template import inside, to_voxels
from tests.unit.landmarks.made import OBLIQUE, SHAPE, at, picture, volume


def drawn(**dots: list[tuple[int, int, int]]) -> tuple[np.ndarray, dict[str, int]]:
    """A label map of `made.SHAPE` with voxels of each name, and the names' values: 2, 4, 6 ..."""
    labels = np.zeros(SHAPE, np.uint16)
    names = {name: 2 * number for number, name in enumerate(dots, start=1)}
    for name, voxels in dots.items():
        for voxel in voxels:
            labels[voxel] = names[name]
    return labels, names


def test_a_landmark_outside_its_image_is_refused_by_name_and_place():
    scan = volume(np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(FewshotError, match=r"Landmark tip of scan .* at -3, 4, 500 mm .* RAS or LPS"):
        LandmarkTemplate(scan, {"base": Mark((4, 4, 4)), "tip": Mark((-3, 4, 500))})


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_place_that_is_no_number_is_outside(value):
    assert not inside(volume(), (0.0, value, 0.0))
    with pytest.raises(FewshotError, match="outside"):
        LandmarkTemplate(volume(), {"tip": Mark((value, 0.0, 0.0))})


def test_a_landmark_is_there_or_absent():
    scan = volume()
    marks = {"tip": Mark(at(scan, 3, 3, 3))}
    assert LandmarkTemplate(scan, marks, frozenset({"root"})).absent == {"root"}
    with pytest.raises(FewshotError, match="Landmark tip of scan is marked and said to be absent"):
        LandmarkTemplate(scan, marks, frozenset({"root", "tip"}))


def test_a_template_without_a_landmark_is_refused():
    for absent in (frozenset(), frozenset({"tip"})):
        with pytest.raises(FewshotError, match="scan has none of the landmarks"):
            LandmarkTemplate(volume(), {}, absent)
    with pytest.raises(FewshotError, match="scan has none of the landmarks"):
        LandmarkTemplate.of_labels(volume(), np.zeros(SHAPE, np.uint16), {"tip": 1})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_ends_half_a_voxel_after_its_last_centre(axis):
    scan = volume(np.diag([-1.0, -1.0, 1.0, 1.0]))
    for voxel, there in (
        (-0.5, True),
        (-0.51, False),
        (SHAPE[axis] - 0.51, True),
        (SHAPE[axis] - 0.5, False),
    ):
        middle = [5.0, 5.0, 5.0]
        middle[axis] = voxel
        assert inside(scan, at(scan, *middle)) == there, voxel


def test_a_picture_is_as_deep_as_its_one_slice():
    image = picture()
    assert inside(image, (-29.4, -19.4, 0.4))
    assert not inside(image, (-29.4, -19.4, 0.6))
    assert not inside(image, (3.0, -5.0, 0.0)), "right of a picture is negative"


def test_voxels_and_millimetres_are_each_others_inverse():
    scan = volume()
    voxels = np.array([[0, 0, 0], [3.25, 7.5, 11], [-4, 30, 2]])
    np.testing.assert_allclose(to_voxels(scan, [at(scan, *of) for of in voxels]), voxels, atol=1e-9)


def test_dots_in_several_slices_are_one_landmark_in_their_middle():
    scan = volume()
    labels, names = drawn(tip=[(4, 5, 2), (4, 5, 3), (6, 5, 2), (6, 5, 3), (5, 9, 8)])
    (mark,) = LandmarkTemplate.of_labels(scan, labels, names).marks.values()
    np.testing.assert_allclose(mark.point, at(scan, 5, 5.8, 3.6))
    places = [at(scan, *of) for of in np.argwhere(labels)]
    off = np.linalg.norm(np.subtract(places, mark.point), axis=1)
    assert mark.spread == pytest.approx(np.sqrt((off**2).mean()))


@given(st.tuples(*(st.integers(0, side - 1) for side in SHAPE)))
def test_a_voxel_alone_is_its_centre(voxel):
    scan = volume()
    labels, names = drawn(other=[], tip=[voxel])
    template = LandmarkTemplate.of_labels(scan, labels, names)
    np.testing.assert_allclose(template.marks["tip"].point, at(scan, *voxel), atol=1e-9)
    assert template.marks["tip"].spread == pytest.approx(0, abs=1e-6)


def test_landmarks_of_a_label_map_are_those_that_are_named_and_drawn():
    scan = volume()
    labels, names = drawn(a=[(1, 1, 1), (1, 1, 2)], liver=[(9, 9, 9)], b=[(1, 2, 1)], c=[])
    del names["liver"]
    names["far"] = 60_000
    template = LandmarkTemplate.of_labels(scan, labels, names, absent=["c"])
    assert list(template.marks) == ["a", "b"]
    assert template.absent == {"c"}
    np.testing.assert_allclose(template.marks["a"].point, at(scan, 1, 1, 1.5))
    np.testing.assert_allclose(template.marks["b"].point, at(scan, 1, 2, 1))


def test_a_label_map_of_another_shape_is_refused():
    scan = volume()
    for shape in ((16, 20, 12), (20, 16, 1), (20, 16)):
        with pytest.raises(FewshotError, match="mark the landmarks on this image"):
            LandmarkTemplate.of_labels(scan, np.ones(shape, np.uint16), {"tip": 1})


def test_names_are_in_order_of_first_appearance():
    scan = volume(OBLIQUE)
    marks = {name: Mark(at(scan, *place)) for name, place in zip("abcd", np.eye(4, 3) * 3, strict=True)}
    templates = [
        LandmarkTemplate(scan, {name: marks[name] for name in order}, frozenset(absent))
        for order, absent in (("ca", "b"), ("ab", "z"), ("dc", ""))
    ]
    assert landmark_names(templates) == ["c", "a", "b", "d"], "what is absent everywhere is no landmark"


def test_two_names_at_one_place_are_refused():
    marks = {"tip": Mark((1.0, 2.0, 3.0)), "root": Mark((4.0, 4.0, 4.0)), "end": Mark((1.0, 2.0, 3.0))}
    with pytest.raises(FewshotError, match="two landmarks at one place, tip and end; move or remove"):
        LandmarkTemplate(volume(np.eye(4)), marks)
