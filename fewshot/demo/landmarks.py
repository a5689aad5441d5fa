"""The landmarks of the demo's studies: where they are, and where the server finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.demo.client import Client
from fewshot.demo.folder import DemoFolder
from fewshot.demo.landmark_results import LandmarkRow, mean_error
from fewshot.demo.templates import SUFFIX
from fewshot.landmark_pictures import landmark_overlay
from fewshot.landmarks import LandmarkPrediction
from fewshot.landmarks.template import Point
from fewshot.volumes import Volume

MODEL = "landmarks"
"""The app's model, and the folder below `found` for what it found."""


class Landmarks:
    """Looks for every landmark in the studies that nobody has marked, and measures how far off it is.

    Args:
        client: connection to the server.
        truth: the studies, with files of their landmarks.
        place: where files go.
        images: each study's name -> the server's id of its image.
    """

    def __init__(self, client: Client, truth: Dataset, place: DemoFolder, images: Mapping[str, str]) -> None:
        self.client = client
        self.place = place
        self.images = images
        # With labels and points both, a data set is opened for its labels unless points are asked for.
        self.dataset = Dataset.open(truth.folder, landmarks="all")

    def truth(self, case: Case, volume: Volume) -> dict[str, Point]:
        """Where a study's landmarks are, RAS mm."""
        marks, _ = self.dataset.read_marks(case, volume)
        return {name: marks[name].point for name in self.dataset.landmarks if name in marks}

    def find_in_others(self, template: str, show: Callable[[int, int], None]) -> list[LandmarkRow]:
        """Find the landmarks of every study but the template, measure them, and draw them."""
        rows: list[LandmarkRow] = []
        cases = [case for name, case in self.dataset.cases.items() if name != template]
        for number, case in enumerate(cases):
            show(number, len(cases))
            volume = self.dataset.volume(case)
            truth = self.truth(case, volume)
            found, seconds = self._find(case, volume)
            measured = measure(case.name, found, truth, seconds)
            landmark_overlay(
                volume,
                found,
                self.place.pictures / f"{case.name}.landmarks.png",
                truth=truth,
                title=_title(case.name, measured),
            )
            rows += measured
        return rows

    def store_report(self, case: str) -> str:
        """Have what was found in a study stored in the PACS as a DICOM report; returns the UID of its series."""
        return self.client.store_landmarks(self.images[case])

    def _find(self, case: Case, volume: Volume) -> tuple[LandmarkPrediction, float]:
        """What the server finds in a study, and the seconds until the answer was there."""
        image, files = self.images[case.name], self.place.found / MODEL
        asked = perf_counter()
        said = self.client.infer(MODEL, image, files / f"{case.name}.nrrd")
        seconds = perf_counter() - asked
        self.client.landmarks(image, files / f"{case.name}.mrk.json")
        return as_found(said, volume), seconds


def as_found(said: Mapping[str, Any], volume: Volume) -> LandmarkPrediction:
    """What the server says about an image's landmarks, under the names that they have in the data set."""
    found = LandmarkPrediction.of_json(said, volume.affine, volume.shape)
    names = {segment: segment.removesuffix(SUFFIX) for segment in found.landmarks}
    landmarks = {names[segment]: replace(of, name=names[segment]) for segment, of in found.landmarks.items()}
    return replace(found, landmarks=landmarks)


def measure(
    case: str, found: LandmarkPrediction, truth: Mapping[str, Point], seconds: float
) -> list[LandmarkRow]:
    """One row for each landmark that there is; one that the server does not know counts as not found."""
    rows = []
    for name, place in truth.items():
        point = found.points.get(name)
        rows.append(
            LandmarkRow(
                case=case,
                landmark=name,
                found=point is not None,
                confidence=found.landmarks[name].confidence if name in found.landmarks else 0.0,
                error_mm=None if point is None else float(np.linalg.norm(np.subtract(point, place))),
                seconds=seconds,
            )
        )
    return rows


def _title(case: str, rows: list[LandmarkRow]) -> str:
    error = mean_error(rows)
    told = "" if error is None else f", mean error {error:.1f} mm"
    return (
        f"{case}, one marked template: {sum(row.found for row in rows)} of {len(rows)} landmarks found{told}"
    )
