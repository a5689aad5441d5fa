"""Landmarks found by what surrounds them, near where registration puts them, and checked by each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from fewshot.landmarks.by_registration import confidence_of
from fewshot.landmarks.carrying import Carried
from fewshot.landmarks.matching import Evidence, Place, match
from fewshot.landmarks.texture import Textures
from tests.unit.landmarks.textured import POINTS, SHAPE, SPACING, body, picture, rotation

NAMES = list(POINTS)
STEP = np.array(SPACING)
MIDDLE = (np.array(SHAPE) - 1) / 2 * STEP
LIMITS = 0.0, 250.0
MISS = np.array([[5.0, -3, 2], [-4, 4, 3], [3, 5, -4], [-5, -2, 4], [2, -5, -3], [-3, 3, 5]])
"""mm, by how much registration errs at each landmark."""


def grey(array: np.ndarray) -> np.ndarray:
    return np.clip((array - LIMITS[0]) / (LIMITS[1] - LIMITS[0]), 0, 1).astype(np.float32)


@cache
def textures(seed: int = 0) -> Textures:
    """Of the body in its own pose."""
    return Textures.around(grey(body(seed=seed).array), STEP, np.array([*POINTS.values()]) + MIDDLE, 2.0)


def truth(pose: np.ndarray, shift: Sequence[float]) -> np.ndarray:
    """mm along the query's axes ``[N, 3]``."""
    return np.array([*POINTS.values()]) @ pose.T + shift + MIDDLE


def evidence(places: np.ndarray, matrix: np.ndarray, seed: int = 0, missing: Sequence[int] = ()) -> Evidence:
    """What registration says where it carries the landmarks to some places."""
    carried = [None if k in missing else Carried(place, matrix) for k, place in enumerate(places)]
    return Evidence(textures(seed), carried, range(len(NAMES)))


def found(query: np.ndarray, *of: Evidence) -> dict[int, Place]:
    return match(query, STEP, of, len(NAMES))


def off(places: dict[int, Place], wanted: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.norm(of.place - wanted[k]) for k, of in places.items()])


POSES = {
    "shifted by parts of a voxel": (np.eye(3), (0.7, -0.4, 0.9)),
    "turned round": (rotation(180, (0, 0, 1)), (1.3, 0.2, -0.5)),
    "turned by a quarter": (rotation(90, (1, 0, 0)), (0, 0.9, 0.3)),
    "turned obliquely": (rotation(25, (1, -1, 2)), (0.5, 0.5, -1.1)),
}


@pytest.mark.parametrize("name", POSES)
def test_landmarks_are_found_to_a_part_of_a_voxel_where_registration_erred_by_three(name):
    pose, shift = POSES[name]
    query, wanted = grey(body(pose, shift, seed=3).array), truth(pose, shift)
    places = found(query, evidence(wanted + MISS, pose.T))
    assert list(places) == list(range(len(NAMES)))
    assert off(places, wanted).mean() < 0.8, "mm; a voxel is 2"
    assert off(places, wanted).max() < 1.6
    for of in places.values():
        assert 0.8 < of.likeness <= 1 + 1e-4
        assert of.cycle < 2.5, "mm: it is found again in the template"


def test_a_texture_is_sought_as_it_is_turned():
    pose = rotation(90, (0, 0, 1))
    query, wanted = grey(body(pose, seed=3).array), truth(pose, (0, 0, 0))
    turned, unturned = (found(query, evidence(wanted, matrix)) for matrix in (pose.T, np.eye(3)))
    gain = np.array([turned[k].likeness - unturned[k].likeness for k in turned])
    assert gain.min() > 0
    assert gain.mean() > 0.2
    assert off(turned, wanted).max() < off(unturned, wanted).mean()


def test_what_was_painted_over_is_less_alike_and_does_not_come_back():
    query, wanted = grey(body(seed=3).array), truth(np.eye(3), (0, 0, 0))
    plain = found(query, evidence(wanted, np.eye(3)))
    gone = NAMES.index("core")
    at = np.round(wanted[gone] / STEP).astype(int)
    other = np.random.default_rng(1).random((15, 15, 15)).astype(np.float32)
    query[tuple(slice(n - 7, n + 8) for n in at)] = other[:, :, : min(15, SHAPE[2] - at[2] + 7)]
    painted = found(query, evidence(wanted, np.eye(3)))
    assert painted[gone].likeness < 0.5 < plain[gone].likeness
    assert painted[gone].cycle > plain[gone].cycle + 2
    far = [NAMES.index(name) for name in ("root", "right")]
    assert max(painted[k].cycle for k in far) < 2.5, "others are found as before"


def test_a_place_that_the_others_contradict_is_said_to_be_off():
    """The surroundings of one landmark were moved by 8 mm, those of the others were not."""
    query, wanted = grey(body(seed=3).array), truth(np.eye(3), (0, 0, 0))
    places = found(query, evidence(wanted, np.eye(3)))
    moved = NAMES.index("tip")
    at = np.round(wanted[moved] / STEP).astype(int)
    box = tuple(slice(n - 6, n + 7) for n in at)
    block = grey(body(seed=0).array)[box]
    query[box] = block.mean()
    query[(slice(box[0].start - 4, box[0].stop - 4), *box[1:])] = block
    again = found(query, evidence(wanted, np.eye(3)))
    np.testing.assert_allclose(again[moved].place, wanted[moved] - [8, 0, 0], atol=1.0)
    assert again[moved].off > places[moved].off + 4


def two_spots(
    first: float, second: float, *, at: tuple[float, float] = (16, 24)
) -> tuple[np.ndarray, Evidence]:
    """A query with two spots of some brightness, and a template with one, that is expected between them."""
    index = np.moveaxis(np.indices((41, 41, 41)), 0, -1)

    def spot(x: float) -> np.ndarray:
        way = index - [x, 20, 20]
        return np.exp(-0.5 * (way**2).sum(-1) / 2.0) + 0.5 * np.exp(
            -0.5 * ((way - [0, 3, 0]) ** 2).sum(-1) / 2
        )

    point = np.array([[20.0, 20, 20]])
    of = Textures.around(0.6 * spot(20), np.ones(3), point, 1.0)
    noise = 0.002 * np.random.default_rng(0).standard_normal(index.shape[:3])
    query = 0.2 + first * spot(at[0]) + second * spot(at[1]) + noise
    return query.astype(np.float32), Evidence(of, [Carried(point[0], np.eye(3))], [0])


@pytest.mark.parametrize("second", [0.0, 0.5])
def test_the_same_texture_at_two_places_is_told_twice(second):
    query, of = two_spots(0.5, second)
    (place,) = match(query, np.ones(3), [of], 1).values()
    told = sorted([place.place[0], *(rival[0] for rival, _ in place.rivals)])
    assert len(told) == (2 if second else 1)
    np.testing.assert_allclose(told, [16, 24][: len(told)], atol=0.6)
    for rival, alike in place.rivals:
        np.testing.assert_allclose(rival[1:], [20, 20], atol=0.6)
        assert alike == pytest.approx(place.likeness, abs=0.1)


@pytest.mark.parametrize("apart", [6, 9])
def test_second_places_are_told_from_as_far_as_the_coarse_search_goes(apart):
    """The place that is expected lies in the middle."""
    query, of = two_spots(0.5, 0.5, at=(20 - apart, 20 + apart))
    (place,) = match(query, np.ones(3), [of], 1).values()
    told = sorted([place.place[0], *(rival[0] for rival, _ in place.rivals)])
    np.testing.assert_allclose(told, [20 - apart, 20 + apart], atol=0.6)


@pytest.mark.parametrize("off", [4.0, 8.0])
def test_one_landmark_alone_is_found_to_a_part_of_a_voxel_where_registration_erred(off):
    query, of = two_spots(0.5, 0.0, at=(20 - off, 0))
    (place,) = match(query, np.ones(3), [of], 1).values()
    np.testing.assert_allclose(place.place, [20 - off, 20, 20], atol=0.4)


def test_a_landmark_that_no_template_carried_is_not_said():
    query, wanted = grey(body(seed=3).array), truth(np.eye(3), (0, 0, 0))
    first = evidence(wanted + MISS, np.eye(3), missing=[1, 4])
    second = evidence(wanted - MISS, np.eye(3), seed=7, missing=[1, 2])
    places = found(query, first, second)
    assert sorted(places) == [0, 2, 3, 4, 5]
    assert off(places, wanted).max() < 2, "a voxel"


def test_templates_that_know_other_landmarks_have_rows_of_their_own():
    query, wanted = grey(body(seed=3).array), truth(np.eye(3), (0, 0, 0))
    known = [3, 0]
    cubes = textures().cubes[:, known]
    rows = [known.index(k) if k in known else None for k in range(len(NAMES))]
    carried = [Carried(wanted[k] + MISS[k], np.eye(3)) if k in known else None for k in range(len(NAMES))]
    places = found(query, Evidence(Textures(cubes, 2.0), carried, rows))
    assert sorted(places) == [0, 3]
    for k, of in places.items():
        assert np.linalg.norm(of.place - wanted[k]) < 1.2, NAMES[k]


def test_places_at_the_border_of_an_image_are_numbers():
    query, wanted = grey(body(seed=3).array), truth(np.eye(3), (0, 0, 0))
    outside = wanted.copy()
    outside[0], outside[1] = [-30, -30, -30], [0, 0, 0]
    for of in found(query, evidence(outside, np.eye(3))).values():
        assert np.isfinite([*of.place, of.likeness, of.cycle, of.off]).all()
    for of in found(np.zeros_like(query), evidence(wanted, np.eye(3))).values():
        assert of.likeness == 0


@pytest.mark.parametrize("angle", [0, 90, 215])
def test_pictures_stay_in_their_plane(angle):
    (before, of_template), (after, of_query) = picture(), picture(angle, (2.3, -1.6), seed=4)
    source, wanted = (
        np.array([[-x, -y, 0] for x, y, _ in places.values()]) for places in (of_template, of_query)
    )
    turn = rotation(-angle)
    of = Evidence(
        Textures.around(grey(before.array), np.ones(3), source, 1.0),
        [Carried(np.add(place, [2.0, -3.0, 0]), turn) for place in wanted],
        range(len(source)),
    )
    places = match(grey(after.array), np.ones(3), [of], len(source))
    assert off(places, wanted).max() < 0.5
    assert all(place.place[2] == 0 for place in places.values())


def test_confidence_falls_with_every_doubt():
    assert confidence_of(1, 0, 0) == pytest.approx(1)
    assert confidence_of(-0.4, 0, 0) == 0
    assert 0 <= confidence_of(2, 50, 90) < 0.01
    for better, worse in [((0.9, 1, 1), (0.6, 1, 1)), ((0.9, 1, 1), (0.9, 4, 1)), ((0.9, 1, 1), (0.9, 1, 9))]:
        assert confidence_of(*better) > confidence_of(*worse) > 0
