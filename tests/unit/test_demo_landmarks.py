"""Landmarks in the demo: dots, what the server says of them, what is told of that."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.affines import apply_affine, voxel_sizes
from rich.console import Console

from fewshot.dataset import Dataset
from fewshot.demo.folder import DemoFolder
from fewshot.demo.landmark_results import (
    LandmarkRow,
    landmark_results,
    landmark_table,
    mean_error,
    mean_seconds,
)
from fewshot.demo.landmarks import Landmarks, as_found, measure
from fewshot.demo.playing import CEILING_MM, FLOOR, require_sane
from fewshot.demo.results import Row
from fewshot.demo.templates import SUFFIX, with_dots
from fewshot.errors import FewshotError
from fewshot.evaluation.metrics import label_scores
from fewshot.landmarks import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.landmarks.template import to_voxels
from fewshot.phantoms import LANDMARKS, make_phantom, write_studies
from fewshot.volumes import Volume

SMALL = (48, 40, 20)


class TestDots:
    @pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
    def test_a_dot_surrounds_its_point_in_every_voxel_order(self, codes: str):
        volume, _, points = make_phantom(2, shape=SMALL, orientation=codes)
        sent, names = with_dots(np.zeros(volume.shape, np.uint16), ["organ"], points, volume.affine)
        assert names == ["organ", *(name + SUFFIX for name in points)]
        for number, point in enumerate(points.values(), start=2):
            away = np.linalg.norm(apply_affine(volume.affine, np.argwhere(sent == number)) - point, axis=1)
            assert away.min() < voxel_sizes(volume.affine).max()
            assert away.max() <= voxel_sizes(volume.affine).max()

    def test_a_dot_lies_on_top_and_nothing_else_changes(self):
        labels = np.full((9, 9, 9), 1, dtype=np.uint16)
        sent, _ = with_dots(labels, ["organ"], {"a": (4.0, 4.0, 4.0)}, np.eye(4))
        assert (labels == 1).all(), "what was drawn before is another array"
        assert np.argwhere(sent == 2).tolist() == sorted(
            [[4, 4, 4], [3, 4, 4], [5, 4, 4], [4, 3, 4], [4, 5, 4], [4, 4, 3], [4, 4, 5]]
        )
        assert set(np.unique(sent)) == {1, 2}

    @pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 5), (7, 7, 12)])
    def test_no_point_is_too_far_from_all_voxels_for_a_dot(self, spacing: tuple[float, ...]):
        affine = np.diag([*spacing, 1.0])
        for share in np.random.default_rng(0).uniform(2, 6, (20, 3)):
            point = tuple(apply_affine(affine, share))
            sent, _ = with_dots(np.zeros((9, 9, 9), np.uint16), [], {"a": point}, affine)
            dot = apply_affine(affine, np.argwhere(sent == 1))
            assert len(dot)
            assert np.linalg.norm(dot.mean(0) - point) < max(spacing) / 2


@pytest.fixture
def truth(tmp_path: Path) -> Dataset:
    write_studies(tmp_path / "truth", 3, shape=SMALL, landmarks=True)
    return Dataset.open(tmp_path / "truth")


class FakeClient:
    """A server that finds every point at a distance, but not the last one, and has a name more than was asked for."""

    off = np.array([3.0, 0.0, 4.0])

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.reported: list[str] = []

    def infer(self, model: str, image: str, result: Path) -> dict[str, Any]:
        self.asked.append((model, image))
        points = make_phantom(int(image.removeprefix("uid.")), shape=SMALL).landmarks
        places = {name + SUFFIX: self.off + point for name, point in points.items()}
        places["other landmark"] = np.zeros(3)
        said = {
            name: FoundLandmark(name, True, 0.75, (Candidate(tuple(place.tolist()), 0.75),))
            for name, place in places.items()
        }
        missed = LANDMARKS[-1] + SUFFIX
        said[missed] = FoundLandmark(missed, False, 0.2, reason="unlike")
        return LandmarkPrediction(said, np.eye(4), SMALL).to_json()

    def landmarks(self, image: str, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(image)
        return path

    def store_landmarks(self, image: str) -> str:
        self.reported.append(image)
        return "1.2.3"


def test_every_study_but_the_template_is_asked_for_measured_and_drawn(tmp_path: Path, truth: Dataset):
    client, place, shown = FakeClient(), DemoFolder(tmp_path / "demo"), []
    landmarks = Landmarks(client, truth, place, {f"phantom_0{n}": f"uid.{n}" for n in range(3)})
    rows = landmarks.find_in_others("phantom_01", lambda *done: shown.append(done))
    assert client.asked == [("landmarks", "uid.0"), ("landmarks", "uid.2")]
    assert shown == [(0, 2), (1, 2)]
    assert [(row.case, row.landmark) for row in rows] == [
        (case, name) for case in ("phantom_00", "phantom_02") for name in LANDMARKS
    ]
    for row in rows:
        assert row.found == (row.landmark != LANDMARKS[-1])
        assert row.confidence == (0.75 if row.found else 0.2)
        assert row.error_mm == (pytest.approx(5, abs=1e-4) if row.found else None)
    for case, image in (("phantom_00", "uid.0"), ("phantom_02", "uid.2")):
        assert (place.found / "landmarks" / f"{case}.mrk.json").read_text() == image
        assert (place.pictures / f"{case}.landmarks.png").stat().st_size > 10_000
    assert not list(place.path.rglob("phantom_01*"))
    assert landmarks.store_report("phantom_02") == "1.2.3"
    assert client.reported == ["uid.2"]


def test_points_are_where_the_study_has_them_whatever_its_voxel_order(tmp_path: Path, truth: Dataset):
    landmarks = Landmarks(FakeClient(), truth, DemoFolder(tmp_path / "demo"), {})
    for codes in ("RAS", "LPS"):
        volume, _, points = make_phantom(1, shape=SMALL, orientation=codes)
        known = landmarks.truth(truth.cases["phantom_01"], volume)
        assert list(known) == list(LANDMARKS)
        np.testing.assert_allclose([*known.values()], [*points.values()], atol=1e-5)


def volume_of(shape: tuple[int, int, int] = (4, 4, 4)) -> Volume:
    return Volume(np.zeros(shape, np.float32), np.eye(4), "CT", "v", None, True, ())


def test_what_the_server_says_is_kept_under_our_names():
    place = Candidate((1.0, 2.0, 3.0), 0.5)
    told = FoundLandmark("a landmark", found=True, confidence=0.5, candidates=(place,))
    said = LandmarkPrediction({"a landmark": told}, np.eye(4), (4, 4, 4)).to_json()
    found = as_found(said, volume_of())
    assert found.points == {"a": (1.0, 2.0, 3.0)}
    assert found.landmarks["a"].confidence == 0.5
    np.testing.assert_allclose(to_voxels(volume_of(), [found.points["a"]])[0], [1, 2, 3])


def test_what_the_server_does_not_know_was_not_found():
    nothing = LandmarkPrediction({}, np.eye(4), (4, 4, 4))
    rows = measure("v", nothing, {"a": (1.0, 1.0, 1.0)}, 2.0)
    assert rows == [LandmarkRow("v", "a", found=False, confidence=0.0, error_mm=None, seconds=2.0)]


SOME = [
    LandmarkRow("x", "one", found=True, confidence=0.9, error_mm=2.0, seconds=1.0),
    LandmarkRow("x", "two", found=True, confidence=0.9, error_mm=6.0, seconds=1.0),
    LandmarkRow("y", "one", found=True, confidence=0.9, error_mm=4.0, seconds=3.0),
    LandmarkRow("y", "two", found=False, confidence=0.1, error_mm=None, seconds=3.0),
]


def test_means_are_over_what_was_found_and_seconds_are_counted_once_per_study():
    assert mean_error(SOME, landmark="one") == 3
    assert mean_error(SOME) == 4
    assert mean_error(SOME[3:]) is None
    assert mean_seconds(SOME) == 2


def test_the_table_shows_error_and_count_of_every_landmark():
    console = Console(width=100, record=True, file=StringIO())
    console.print(landmark_table([*SOME, *(LandmarkRow(c, "three", False, 0, None, 1.0) for c in "xy")]))
    lines = console.export_text().splitlines()
    words = ("one", "two", "three", "mean")
    assert [line.split()[1::2] for line in lines if line.split()[1:2] and line.split()[1] in words] == [
        ["one", "3.0", "2/2"],
        ["two", "6.0", "1/2"],
        ["three", "–", "0/2"],
        ["mean", "4.0", "3/6"],
    ]


def test_results_have_a_row_for_every_study_and_landmark():
    found = json.loads(json.dumps(landmark_results(SOME)))
    assert found["rows"][3] == {
        "case": "y", "landmark": "two", "found": False, "confidence": 0.1, "error_mm": None, "seconds": 3.0,
    }  # fmt: skip
    assert found["summary"] == {
        "one": {"error_mm": 3.0, "found": 2, "of": 2},
        "two": {"error_mm": 6.0, "found": 1, "of": 2},
        "mean": {"error_mm": 4.0, "found": 3, "of": 4, "seconds": 2.0},
    }


class TestSanity:
    """Only what cannot be chance ends the demo with an error."""

    @staticmethod
    def dice(value: float) -> list[Row]:
        labels = np.arange(100).reshape(100, 1, 1) < 50
        found = np.roll(labels, round(50 * (1 - value)), axis=0)  # shares of two equal halves: Dice
        scores = label_scores(labels.astype(np.uint8), found.astype(np.uint8), {"a": 1}, affine=np.eye(4))
        assert scores["a"].dice == pytest.approx(value)
        return [Row("x", "auto", "a", scores["a"], 1.0, 1.0)]

    def test_usual_results_pass(self, tmp_path: Path):
        require_sane(self.dice(0.8), SOME, DemoFolder(tmp_path))

    def test_a_dice_below_the_floor_is_told(self, tmp_path: Path):
        with pytest.raises(FewshotError, match=rf"mean Dice .* is 0\.20, and below {FLOOR}.*pictures"):
            require_sane(self.dice(0.2), SOME, DemoFolder(tmp_path))

    def test_points_that_are_far_off_are_told(self, tmp_path: Path):
        far = [LandmarkRow("x", "one", True, 0.9, CEILING_MM + 1, 1.0)]
        with pytest.raises(FewshotError, match=r"landmarks are 21\.0 mm off on average, and above 20 mm"):
            require_sane(self.dice(0.8), far, DemoFolder(tmp_path))

    @pytest.mark.parametrize("found", [0, 1])
    def test_points_that_are_missing_nearly_everywhere_are_told(self, tmp_path: Path, found: int):
        rows = [LandmarkRow("x", str(n), n < found, 0.5, 1.0 if n < found else None, 1.0) for n in range(5)]
        with pytest.raises(FewshotError, match=f"{found} of 5 landmarks were found, and below 40%"):
            require_sane(self.dice(0.8), rows, DemoFolder(tmp_path))
