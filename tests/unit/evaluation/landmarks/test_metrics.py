"""Distances of single landmarks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.evaluation.landmarks import landmark_scores
from fewshot.evaluation.landmarks.views import WHOLE, View
from fewshot.landmarks import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.volumes import Volume

AFFINE = np.diag([0.5, 0.5, 4.0, 1.0])


def view(*, calibrated: bool = True, absent=()) -> View:
    volume = Volume(array=np.zeros((40, 40, 10)), affine=AFFINE, calibrated=calibrated)
    return View(WHOLE, volume, {"a": (5.0, 5.0, 8.0)}, frozenset(absent))


def prediction(point, *, found: bool = True, name: str = "a") -> LandmarkPrediction:
    places = (Candidate(point, 0.7),) if point else ()
    told = {name: FoundLandmark(name, found=found, confidence=0.7 if point else 0.0, candidates=places)}
    return LandmarkPrediction(told, AFFINE, (40, 40, 10))


def score(point, **changes):
    found = changes.pop("found", True)
    return landmark_scores(view(**changes), prediction(point, found=found), ["a"])["a"]


def test_millimetres_and_voxels_are_two_distances():
    """3 mm and 4 mm in plane are 6 and 8 voxels: 5 mm, 10 voxels, which is no hit."""
    of = score((8.0, 9.0, 8.0))
    assert of.error_mm == pytest.approx(5)
    assert of.error_px == pytest.approx(10)
    assert (of.hit_10px, of.success_2mm, of.success_4mm, of.success_10mm) == (False, False, False, True)
    assert (of.present, of.found, of.confidence) == (True, True, 0.7)


def test_two_slices_are_two_voxels():
    of = score((5.0, 5.0, 16.0))
    assert (of.error_mm, of.error_px, of.hit_10px) == (pytest.approx(8), pytest.approx(2), True)


@pytest.mark.parametrize(("mm", "within"), [(2.0, (True, True, True)), (4.0, (False, True, True))])
def test_success_includes_its_limit(mm, within):
    of = score((5.0 + mm, 5.0, 8.0))
    assert (of.success_2mm, of.success_4mm, of.success_10mm) == within


def test_what_was_not_found_is_a_miss_without_error():
    of = score(None, found=False)
    assert (of.found, of.error_mm, of.error_px, of.guess_mm, of.point) == (False, None, None, None, None)
    assert (of.hit_10px, of.success_10mm) == (False, False)


def test_what_was_refused_is_a_miss_whose_guess_is_told():
    of = score((6.0, 5.0, 8.0), found=False)
    assert (of.error_mm, of.hit_10px, of.success_2mm) == (None, False, False)
    assert of.guess_mm == pytest.approx(1)


def test_where_it_is_absent_only_finding_counts():
    found = landmark_scores(view(absent={"b"}), prediction((1.0, 1.0, 0.0), name="b"), ["b"])["b"]
    assert (found.present, found.found, found.error_mm, found.hit_10px, found.success_2mm) == (
        False, True, None, None, None,
    )  # fmt: skip
    assert found.guess_mm is None


def test_what_nobody_knows_is_not_judged():
    assert landmark_scores(view(), prediction((1.0, 1.0, 0.0), name="c"), ["c"]) == {}


def test_without_scale_there_are_pixels_alone():
    of = score((8.0, 9.0, 8.0), calibrated=False)
    assert (of.error_mm, of.guess_mm, of.success_2mm, of.success_10mm) == (None, None, None, None)
    assert of.error_px == pytest.approx(10)
