"""Halves of a volume: what they hold, what they have lost, and where their voxels lie."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import apply_affine

from fewshot.evaluation.landmarks.views import DRAWN, MARGIN, views_of
from fewshot.landmarks import Mark
from fewshot.volumes import Volume


def volume(shape=(10, 12, 40), affine=None) -> Volume:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume(array=values, affine=np.diag([3.0, 3, 2, 1]) if affine is None else affine, name="a")


def marks(**heights: float) -> dict[str, Mark]:
    return {name: Mark((9.0, 9.0, height)) for name, height in heights.items()}


def test_halves_are_cut_across_the_longest_axis():
    """80 mm along z: the cut is at 39 mm, and 4 mm on both sides of it are not judged."""
    assert MARGIN == 0.05
    of = views_of(volume(), marks(low=10, near=36, beyond=42, high=70), frozenset({"gone"}))
    assert list(of) == ["whole", "first-half", "second-half"]
    assert of["whole"].present.keys() == {"low", "near", "beyond", "high"}
    assert of["whole"].absent == {"gone"}
    first, second = of["first-half"], of["second-half"]
    assert first.volume.shape == second.volume.shape == (10, 12, 20)
    assert (first.present.keys(), first.absent) == ({"low"}, {"high"})
    assert (second.present.keys(), second.absent) == ({"high"}, {"low"})


def test_voxels_stay_where_they_are():
    whole = volume()
    half = views_of(whole, marks(low=10, high=70), frozenset())["second-half"].volume
    np.testing.assert_array_equal(half.array, whole.array[:, :, 20:])
    np.testing.assert_allclose(apply_affine(half.affine, [3, 4, 5]), apply_affine(whole.affine, [3, 4, 25]))
    assert half.name == "a second-half"


def test_a_volume_stored_from_above_has_the_same_first_half():
    turned = np.diag([3.0, 3, -2, 1])
    turned[2, 3] = 78
    of = views_of(volume(affine=turned), marks(low=10, high=70), frozenset())
    assert of["first-half"].present.keys() == {"low"}
    assert of["first-half"].absent == {"high"}
    np.testing.assert_array_equal(of["first-half"].volume.array, volume().array[:, :, 20:])


def test_a_region_is_absent_only_when_most_of_it_is():
    drawn = {"organ": Mark((9.0, 9.0, 60.0), spread=14.0), "dot": Mark((9.0, 9.0, 60.0))}
    assert DRAWN * 14 + 4 > 60 - 39
    of = views_of(volume(), drawn, frozenset())
    assert of["first-half"].absent == {"dot"}
    assert of["second-half"].present.keys() == {"dot"}


@pytest.mark.parametrize("shape", [(7, 5, 4), (1, 3, 7)])
def test_small_volumes_are_not_cut(shape):
    assert list(views_of(volume(shape), marks(low=0), frozenset())) == ["whole"]


def test_a_picture_is_cut_in_its_plane():
    of = views_of(volume((60, 20, 1)), {"left": Mark((9.0, 9.0, 0.0))}, frozenset())
    assert of["first-half"].volume.shape == (30, 20, 1)
    assert of["second-half"].absent == {"left"}


def test_a_case_without_a_known_landmark_has_no_views():
    assert views_of(volume(), {}, frozenset()) == {}
    assert list(views_of(volume(), {}, frozenset({"gone"}))) == ["whole"]
