"""Labels between and beyond the slices on which they were drawn."""

import numpy as np
import pytest

from fewshot.atlas.completion import BEYOND, complete, signed_distance

SIDE = 40


def disc(radius, centre=(20, 20)):
    rows, cols = np.ogrid[:SIDE, :SIDE]
    return (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2


def drawn_on(slices, count=11):
    mask, labelled = np.zeros((count, SIDE, SIDE), bool), np.zeros(count, bool)
    for index, outline in slices.items():
        mask[index], labelled[index] = outline, True
    return mask, labelled


def radius_of(mask):
    return np.sqrt(mask.sum() / np.pi)


def test_what_is_wholly_labelled_stays_as_it_is():
    mask = np.random.default_rng(0).uniform(size=(5, 9, 8)) > 0.5
    result = complete(mask, np.ones(5, bool), reach=3)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, mask)


def test_between_two_slices_the_outline_is_interpolated():
    mask, labelled = drawn_on({1: disc(4), 9: disc(12)})
    result = complete(mask, labelled, reach=2)
    assert set(np.unique(result[1:10])) == {0, 1}
    for index in range(1, 10):
        assert radius_of(result[index]) == pytest.approx(4 + (index - 1), abs=0.7)
    np.testing.assert_array_equal(result[labelled], mask[labelled])


def test_an_oblique_structure_moves_between_two_slices():
    mask, labelled = drawn_on({0: disc(7, (20, 15)), 10: disc(7, (20, 25))})
    middle = complete(mask, labelled, reach=2)[5]
    assert np.argwhere(middle).mean(0) == pytest.approx([20, 20], abs=0.5)
    assert radius_of(middle) > 4.5


def test_beyond_the_outermost_slices_the_label_fades_with_reach():
    mask, labelled = drawn_on({4: disc(6), 5: disc(8)})
    for reach in (1.0, 4.0):
        result = complete(mask, labelled, reach=reach)
        for distance in range(5):
            fade = BEYOND * np.exp(-distance / reach)
            np.testing.assert_allclose(result[6 + distance], disc(8) * fade, rtol=1e-5)
            if distance < 4:
                np.testing.assert_allclose(result[3 - distance], disc(6) * fade, rtol=1e-5)


def test_towards_a_slice_without_the_label_it_shrinks_and_ends():
    mask, labelled = drawn_on({0: np.zeros((SIDE, SIDE), bool), 5: disc(9), 10: np.zeros((SIDE, SIDE), bool)})
    result = complete(mask, labelled, reach=2)
    areas = result.sum((1, 2))
    assert (np.diff(areas[5:]) <= 0).all()
    assert (np.diff(areas[:6]) >= 0).all()
    assert areas[9] == areas[10] == areas[1] == areas[0] == 0
    assert 0 < areas[6] < areas[5]
    np.testing.assert_array_equal(areas, areas[::-1])


def test_a_slice_that_was_looked_at_is_never_filled_in():
    mask, labelled = drawn_on({2: disc(6), 4: np.zeros((SIDE, SIDE), bool), 6: disc(6)})
    result = complete(mask, labelled, reach=2)
    assert not result[4].any()
    assert result[3].any()


def test_a_label_that_was_drawn_nowhere_stays_nowhere():
    mask, labelled = drawn_on({2: np.zeros((SIDE, SIDE), bool), 8: np.zeros((SIDE, SIDE), bool)})
    assert not complete(mask, labelled, reach=2).any()


def test_one_labelled_slice_and_one_pixel_are_enough():
    mask, labelled = drawn_on({5: disc(0)})
    result = complete(mask, labelled, reach=1)
    assert result[:, 20, 20].argmax() == 5
    assert result[5].sum() == 1
    assert np.count_nonzero(result) == len(mask)


def test_signed_distance_counts_from_the_outline_and_over_the_border():
    filled = np.ones((5, 5), bool)
    assert signed_distance(filled)[2, 2] == 3, "outside the picture is outside the structure"
    mask = disc(5)
    distance = signed_distance(mask)
    np.testing.assert_array_equal(distance > 0, mask)
    assert distance[20, 20] == pytest.approx(5.1, abs=0.1)
    assert (signed_distance(~filled) < 0).all()
