"""The arrangement of landmarks: where the others say that one should be."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.landmarks.arrangement import expected
from tests.unit.landmarks.textured import rotation

Points = dict[int, np.ndarray]
POINTS: Points = {
    number: np.array(place, float)
    for number, place in enumerate(
        [
            (30, 2, 3), (-28, 5, -4), (3, 25, 6), (2, -24, -7), (-5, -3, 22),
            (8, 6, -20), (18, 15, 9), (-16, -14, 10), (14, -12, -13), (-12, 17, -9),
        ]
    )
}  # fmt: skip
SHIFT = np.array([4.0, -7.0, 2.5])


def sure(found: Points) -> dict[int, float]:
    return dict.fromkeys(found, 1.0)


def moved(matrix: np.ndarray, shift: np.ndarray, points: Points = POINTS) -> Points:
    return {name: matrix @ place + shift for name, place in points.items()}


def errors(said: Points, truth: Points) -> np.ndarray:
    return np.array([np.linalg.norm(said[name] - truth[name]) for name in truth])


@pytest.mark.parametrize("count", [4, 6, 10])
def test_what_was_shifted_is_expected_where_it_was_shifted_to(count):
    points = {name: POINTS[name] for name in range(count)}
    truth = moved(np.eye(3), SHIFT, points)
    said = expected(truth, [points], sure(truth))
    assert list(said) == list(points)
    assert errors(said, truth).max() < 1e-6


@pytest.mark.parametrize(
    "matrix",
    [rotation(5, (1, 2, 3)), np.diag([1.06, 0.95, 1.03]), np.eye(3) + 0.05 * np.eye(3)[[1, 2, 0]]],
    ids=["turned", "stretched", "sheared"],
)
def test_what_was_distorted_a_little_is_expected_nearer_than_by_a_shift(matrix):
    truth = moved(matrix, SHIFT)
    off = errors(expected(truth, [POINTS], sure(truth)), truth)
    plain = errors(moved(np.eye(3), SHIFT), truth)
    assert off.mean() < 0.3 * plain.mean()
    assert off.max() < plain.max()


def test_a_landmark_has_no_say_in_where_it_is_expected():
    truth = moved(rotation(4), SHIFT)
    said = expected(truth, [POINTS], sure(truth))
    for name in (0, 4, 9):
        wrong = truth | {name: truth[name] + [90, -40, 10]}
        np.testing.assert_allclose(expected(wrong, [POINTS], sure(wrong))[name], said[name], atol=1e-9)
        without = {other: place for other, place in truth.items() if other != name}
        np.testing.assert_allclose(expected(without, [POINTS], sure(without))[name], said[name], atol=1e-9)


OFF = [(120.0, 0.0, 0.0), (-15.0, 12.0, 9.0)]


def with_one_wrong(name: int, off: tuple[float, float, float]) -> np.ndarray:
    """Errors of what is expected where all were shifted, and one was found elsewhere."""
    truth = moved(np.eye(3), SHIFT)
    wrong = truth | {name: truth[name] + off}
    return errors(expected(wrong, [POINTS], sure(wrong)), truth)


@pytest.mark.parametrize("name", [0, 3, 7])
@pytest.mark.parametrize("off", OFF)
def test_one_wrong_place_misleads_no_other_and_is_expected_where_it_belongs(name, off):
    said = with_one_wrong(name, off)
    assert said.max() < 1.0
    assert said[name] < 0.5


def test_what_looks_like_nothing_counts_little():
    """Two of five are wrong, too many to be told by their number alone; their likeness tells."""
    points = {name: POINTS[name] for name in range(6)}
    truth = moved(np.eye(3), SHIFT, points)
    wrong = truth | {name: truth[name] + [12.0, 12.0, 0.0] for name in (1, 2, 3)}
    trust = {name: 0.02 if name in (1, 2, 3) else 0.95 for name in points}
    said, blind = (expected(wrong, [points], of)[0] for of in (trust, sure(wrong)))
    assert np.linalg.norm(said - truth[0]) < np.linalg.norm(blind - truth[0])
    assert np.linalg.norm(said - truth[0]) < 2


def test_a_few_others_say_nothing():
    for count in (1, 2, 3):
        points = {name: POINTS[name] for name in range(count)}
        assert expected(points, [points], sure(points)) == {}
    assert expected({}, [POINTS], {}) == {}
    assert expected(POINTS, [], sure(POINTS)) == {}


def test_a_pair_that_was_mistaken_for_each_other_is_expected_on_its_own_side():
    """Landmarks 2 and 3 are left and right; what was found is the one where the other is."""
    truth = moved(np.eye(3), SHIFT)
    swapped = truth | {2: truth[3], 3: truth[2]}
    said = expected(swapped, [POINTS], sure(swapped))
    for name, other in ((2, 3), (3, 2)):
        assert np.linalg.norm(said[name] - truth[name]) < 0.3 * np.linalg.norm(said[name] - truth[other])


def test_landmarks_in_a_plane_and_on_a_line_are_expected_there():
    flat = {name: place * [1, 1, 0] for name, place in POINTS.items()}
    line = {name: place * [1, 0, 0] for name, place in POINTS.items()}
    for points in (flat, line):
        truth = moved(np.eye(3), SHIFT, points)
        assert errors(expected(truth, [points], sure(truth)), truth).max() < 1e-6


def test_all_landmarks_at_one_place_give_a_number():
    points = dict.fromkeys(range(5), np.zeros(3))
    said = expected(moved(np.eye(3), SHIFT, points), [points], sure(points))
    np.testing.assert_allclose([*said.values()], [SHIFT] * 5, atol=1e-6)


def test_one_wrong_template_of_three_is_outvoted():
    truth = moved(np.eye(3), SHIFT)
    bad = moved(np.eye(3), np.array([0, 0, 60.0])) | {5: POINTS[5] + [200, 0, 0]}
    said = expected(truth, [POINTS, bad, POINTS], sure(truth))
    assert errors(said, truth).max() < 1e-6


def test_each_template_speaks_of_the_landmarks_it_has():
    first = {name: POINTS[name] for name in (0, 1, 2, 3, 4)}
    second = {name: POINTS[name] for name in (3, 4, 5, 6, 7)}
    few = {name: POINTS[name] for name in (7, 8)}
    truth = moved(np.eye(3), SHIFT)
    said = expected(truth, [first, second, few], sure(truth))
    assert sorted(said) == list(range(8)), "of landmark 8 one template knows, and that one knows one other"
    assert errors(said, {name: truth[name] for name in said}).max() < 1e-6
