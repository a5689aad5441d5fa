"""Landmarks of pictures by the adapter's probabilities, around where registration puts them."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.landmarks.appearance import look

SIDES = (120, 90)
SPACING = np.array([0.5, 0.5, 1.0])
CARRIED = {
    0: (12.0, 20.0, 0.0),
    1: (40.0, 12.0, 0.0),
    2: (30.0, 35.0, 0.0),
    3: (15.0, 38.0, 0.0),
    4: (50.0, 30.0, 0.0),
}
CARRIED = {name: np.array(place) for name, place in CARRIED.items()}


def probable(*spots: tuple[int, float, float, float]) -> np.ndarray:
    """Probabilities of five landmarks with spots: landmark, x and y in mm, height."""
    x, y = np.meshgrid(*[np.arange(side) * 0.5 for side in SIDES], indexing="ij")
    maps = np.full((*SIDES, 1, len(CARRIED)), 0.01, np.float16)
    for name, at, up, height in spots:
        maps[:, :, 0, name] += (height * np.exp(-0.5 * ((x - at) ** 2 + (y - up) ** 2) / 1.0)).astype(
            np.float16
        )
    return maps


def everywhere(
    shift: tuple[float, float] = (0, 0), but: int | None = None
) -> list[tuple[int, float, float, float]]:
    return [(name, x + shift[0], y + shift[1], 0.9) for name, (x, y, _) in CARRIED.items() if name != but]


def test_a_landmark_is_where_it_is_probable_though_registration_was_off():
    places = look(probable(*everywhere((3.0, -2.0))), SPACING, [CARRIED])
    assert sorted(places) == sorted(CARRIED)
    for name, of in places.items():
        np.testing.assert_allclose(of.place, CARRIED[name] + (3, -2, 0), atol=0.3)
        assert of.likeness > 0.8
        assert of.off < 0.5


def test_a_far_place_is_not_looked_at():
    places = look(probable(*everywhere(but=2), (2, 55.0, 40.0, 0.99)), SPACING, [CARRIED])
    np.testing.assert_allclose(places[2].place, CARRIED[2], atol=1.5)
    assert places[2].likeness < 0.05, "nothing looks like it where it should be"


def test_with_more_templates_the_adapter_is_trusted_farther_from_where_registration_says():
    """Probable and far, against half as probable and near."""
    x, y, _ = CARRIED[2]
    far = 7.0
    spots = [*everywhere(but=2), (2, x - far, y, 0.9), (2, x, y, 0.1)]
    one, four = (look(probable(*spots), SPACING, [CARRIED] * templates)[2] for templates in (1, 4))
    np.testing.assert_allclose(one.place, CARRIED[2], atol=0.5)
    np.testing.assert_allclose(four.place, (x - far, y, 0), atol=0.5)


def test_what_the_others_say_decides_between_two_that_look_alike():
    x, y, _ = CARRIED[2]
    shift = 2.5
    both = [(2, x + shift, y, 0.8), (2, x - shift, y, 0.8)]
    for way in (1, -1):
        places = look(probable(*everywhere((way * shift, 0), but=2), *both), SPACING, [CARRIED])
        assert abs(places[2].place[0] - (x + way * shift)) < abs(places[2].place[0] - (x - way * shift))


def test_a_second_place_that_is_nearly_as_good_is_told():
    x, y, _ = CARRIED[0]
    here, there = (x - 2.6, y, 0.0), (x + 2.6, y, 0.0)
    places = look(
        probable(*everywhere(but=0), (0, *here[:2], 0.9), (0, *there[:2], 0.88)), SPACING, [CARRIED]
    )
    told = [places[0].place, *(place for place, _ in places[0].rivals)]
    np.testing.assert_allclose(told, [here, there], atol=0.6)


@pytest.mark.parametrize("place", [(-1.0, -1.0, 0.0), (59.9, 44.9, 0.0), (80.0, 20.0, 0.0)])
def test_a_place_at_or_beyond_the_border_is_no_error(place):
    places = look(probable(), SPACING, [{0: np.array(place)}])
    assert np.isfinite(places[0].place).all()


def test_nothing_carried_nothing_found():
    assert look(probable(), SPACING, [{}]) == {}
