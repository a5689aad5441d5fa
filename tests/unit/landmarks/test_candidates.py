"""From probabilities to points: where the middle of a component lies, and which one is the landmark."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.landmarks.candidates import components_of

SHAPE = (24, 20, 12)


def maps(*blocks: tuple[int, tuple[slice, slice, slice], float]) -> tuple[np.ndarray, np.ndarray]:
    """Classes and certainty from blocks: label, where, probability; background is sure."""
    classes, certainty = np.zeros(SHAPE, np.uint16), np.ones(SHAPE, np.float16)
    for label, where, probability in blocks:
        classes[where], certainty[where] = label, probability
    return classes, certainty


def block(x: int, y: int, z: int, side: int = 3) -> tuple[slice, slice, slice]:
    """A cube with its middle at a voxel."""
    half = side // 2
    return slice(x - half, x + half + 1), slice(y - half, y + half + 1), slice(z - half, z + half + 1)


def test_an_even_block_is_its_middle():
    ((only,),) = components_of(*maps((1, block(8, 7, 5), 0.75)), 1, most=3)
    np.testing.assert_allclose(only.centre, (8, 7, 5))
    assert only.mass == pytest.approx(27 * 0.75)
    assert only.confidence == pytest.approx(0.75)


def test_the_centre_is_drawn_to_what_is_more_probable():
    classes, certainty = maps((1, block(8, 7, 5), 0.4))
    certainty[9, 6:9, 4:7] = 0.8
    ((only,),) = components_of(classes, certainty, 1, most=3)
    weights = certainty.astype(float) * (classes == 1)
    wanted = (np.indices(SHAPE) * weights).sum((1, 2, 3)) / weights.sum()
    np.testing.assert_allclose(only.centre, wanted)
    assert only.centre[0] > 8.2
    np.testing.assert_allclose(only.centre[1:], (7, 5))
    assert only.confidence == pytest.approx(weights.sum() / 27)


def test_a_sure_place_comes_before_a_larger_doubtful_one():
    doubtful, sure = (1, block(6, 6, 5, 5), 0.2), (1, block(18, 14, 6), 0.99)
    ((first, second),) = components_of(*maps(doubtful, sure), 1, most=3)
    np.testing.assert_allclose(first.centre, (18, 14, 6))
    np.testing.assert_allclose(second.centre, (6, 6, 5))
    assert first.mass > second.mass
    ((only,),) = components_of(*maps(doubtful, sure), 1, most=1)
    np.testing.assert_allclose(only.centre, first.centre)


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_so_many_components_are_told_the_best_first(most):
    places = [(3, 3, 2), (10, 3, 2), (17, 3, 2), (3, 12, 8), (10, 12, 8)]
    shares = [0.5, 0.9, 0.3, 0.7, 0.6]
    blocks = [(1, block(*place), share) for place, share in zip(places, shares, strict=True)]
    (found,) = components_of(*maps(*blocks), 1, most=most)
    assert len(found) == min(most, 5)
    wanted = [places[index] for index in np.argsort(shares)[::-1][:most]]
    np.testing.assert_allclose([of.centre for of in found], wanted)


def test_every_label_has_its_own_list_and_one_that_is_nowhere_an_empty_one():
    found = components_of(*maps((3, block(5, 5, 5), 0.5), (1, block(12, 12, 6), 0.5)), 4, most=2)
    assert [len(of) for of in found] == [1, 0, 1, 0]
    np.testing.assert_allclose(found[0][0].centre, (12, 12, 6))
    np.testing.assert_allclose(found[2][0].centre, (5, 5, 5))
    assert components_of(*maps(), 2, most=2) == [[], []]


def test_voxels_that_touch_at_a_corner_are_one_place_and_labels_that_touch_are_two():
    classes, certainty = maps()
    classes[4, 4, 4] = classes[5, 5, 5] = 1
    classes[6, 6, 6] = 2
    certainty[4:7, 4:7, 4:7] = 0.5
    (first,), (second,) = components_of(classes, certainty, 2, most=3)
    np.testing.assert_allclose(first.centre, (4.5, 4.5, 4.5))
    np.testing.assert_allclose(second.centre, (6, 6, 6))


def test_a_component_without_any_probability_has_a_middle():
    ((only,),) = components_of(*maps((1, block(8, 7, 5), 0.0)), 1, most=3)
    np.testing.assert_allclose(only.centre, (8, 7, 5))
    assert (only.mass, only.confidence) == (0, 0)


def test_a_picture_has_one_slice():
    classes, certainty = np.zeros((30, 20, 1), np.uint16), np.ones((30, 20, 1), np.float16)
    classes[10:13, 4:7, 0] = 1
    ((only,),) = components_of(classes, certainty, 1, most=3)
    np.testing.assert_allclose(only.centre, (11, 5, 0))
