"""What is said about landmarks, as JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks import Candidate, FoundLandmark, LandmarkPrediction
from tests.unit.landmarks.made import OBLIQUE, SHAPE, at, picture, prediction, volume


def two_places() -> LandmarkPrediction:
    scan = volume()
    places = (Candidate(at(scan, 4, 5, 6), 0.75), Candidate(at(scan, 9, 5, 6), 0.5))
    landmarks = {
        "tip": FoundLandmark("tip", True, 0.75, places),
        "gone": FoundLandmark("gone", False, 0.125, places[1:], "nothing looks like it"),
        "out": FoundLandmark("out", False, 0.0, reason="it lies outside"),
    }
    return LandmarkPrediction(
        landmarks, OBLIQUE, SHAPE, timings={"total": 1.5}, provenance={"method": "auto"}, notes=["a"]
    )


def test_json_comes_back_as_it_was():
    told = json.loads(json.dumps(two_places().to_json()))
    again = LandmarkPrediction.of_json(told, OBLIQUE, SHAPE)
    assert again.to_json() == told
    for name, of in two_places().landmarks.items():
        back = again.landmarks[name]
        assert (back.found, back.confidence, back.reason) == (of.found, of.confidence, of.reason)
        np.testing.assert_allclose(
            [place.point for place in back.candidates], [place.point for place in of.candidates], atol=1e-4
        )


def test_every_place_is_told_in_ras_in_lps_and_in_voxels():
    told = two_places().to_json()["landmarks"]["tip"]
    x, y, z = at(volume(), 4, 5, 6)
    np.testing.assert_allclose(told["ras"], [x, y, z], atol=1e-4)
    np.testing.assert_allclose(told["lps"], [-x, -y, z], atol=1e-4)
    np.testing.assert_allclose(told["voxel"], [4, 5, 6], atol=1e-4)
    assert told["candidates"][0]["ras"] == told["ras"]


def test_what_was_not_found_has_a_reason_and_no_place():
    told = two_places().to_json()["landmarks"]
    assert {"ras", "lps", "voxel"}.isdisjoint(told["gone"])
    assert told["gone"]["reason"] == "nothing looks like it"
    assert len(told["gone"]["candidates"]) == 1
    assert list(two_places().points) == ["tip"]


def test_pictures_are_in_pixels():
    xray = picture()
    told = prediction(xray, tip=at(xray, 7, 3, 0)).to_json()
    assert told["units"] == "pixel"
    assert told["landmarks"]["tip"]["voxel"] == [7, 3, 0]
    assert not LandmarkPrediction.of_json(told, xray.affine, xray.shape).calibrated


@pytest.mark.parametrize("ras", [[float("nan"), 1, 1], [1, 1, float("inf")], [1, 1, 10**400]])
def test_a_place_that_is_none_is_refused(ras):
    told = two_places().to_json()
    told["landmarks"]["tip"]["candidates"][1]["ras"] = ras
    with pytest.raises(FewshotError, match="cannot be read"):
        LandmarkPrediction.of_json(told, OBLIQUE, SHAPE)


@pytest.mark.parametrize("change", [{"confidence": float("nan")}, {"candidates": []}])
def test_a_landmark_that_was_found_has_a_place_and_a_confidence(change):
    told = two_places().to_json()
    told["landmarks"]["tip"] |= change
    with pytest.raises(FewshotError, match="cannot be read"):
        LandmarkPrediction.of_json(told, OBLIQUE, SHAPE)


@pytest.mark.parametrize(
    "said", [{}, {"landmarks": 3}, {"landmarks": {"x": {"found": True}}}, {"landmarks": {"x": 1}}]
)
def test_what_is_no_result_is_refused(said):
    with pytest.raises(FewshotError, match="cannot be read"):
        LandmarkPrediction.of_json(said, OBLIQUE, SHAPE)
