"""Landmarks in OHIF, from the first dot to a report in the PACS; the tests are one story and run in this order."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from nibabel.affines import apply_affine

from lib.pacs.sr_reading import read_sr
from tests.server.conftest import Server
from tests.viewer.conftest import Pacs, Study
from tests.viewer.ohif import Ohif

pytestmark = [pytest.mark.viewer, pytest.mark.server, pytest.mark.pacs]

NAMES = {
    "portal vein landmark": "portal_vein",
    "right kidney landmark": "kidney_right_top",
    "left pelvis landmark": "renal_pelvis_left",
}
"""Segment -> the landmark of a made-up study."""

NEAR = 25.0
"""mm: voxels are 3.5 x 3.5 x 6, and a landmark that was taken for another one is farther away."""


@pytest.fixture(scope="module")
def conf() -> dict[str, str]:
    """Nothing is said about landmarks: their names tell them, and the server trains what is labelled."""
    return {"backbone": "random-tiny", "max_epochs": "6"}


def distance(study: Study, segment: str, place: Any) -> float:
    """How far a place is from the true one, mm."""
    return float(np.linalg.norm(np.subtract(place, study.landmarks[NAMES[segment]])))


def dot(ohif: Ohif, study: Study, segment: str) -> None:
    """A short stroke of the brush across the true place: a click would be waited for, as it may become two."""
    inverse = np.linalg.inv(study.volume.affine)
    x, y, z = (int(i) for i in np.rint(apply_affine(inverse, study.landmarks[NAMES[segment]])))
    ohif.select_segment(segment)
    ohif.scroll_to(z, study.volume.shape[2])
    at = ohif.canvas_of((x, y, z))
    ohif.stroke([(at[0] - 4, at[1]), at, (at[0] + 4, at[1])])
    assert (ohif.voxels(study.volume.shape) == ohif.segments()[segment]).any()


def landmarks(server: Server, study: Study, **params: str) -> dict[str, Any]:
    """What the server says about a study's landmarks."""
    answer = requests.get(f"{server.url}/landmarks/{study.series}", params=params, timeout=300)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["landmarks"])


def centres(ohif: Ohif, study: Study) -> dict[str, np.ndarray]:
    """Segment -> the middle of what the viewer shows of it, RAS mm."""
    shown = ohif.voxels(study.volume.shape)
    balls = {segment: np.argwhere(shown == number) for segment, number in ohif.segments().items()}
    return {
        segment: apply_affine(study.volume.affine, voxels.mean(0))
        for segment, voxels in balls.items()
        if len(voxels)
    }


def test_dots_are_submitted_as_landmarks(ohif: Ohif, pacs: Pacs, server: Server) -> None:
    study = pacs.studies[0]
    ohif.open(study.study)
    ohif.connect()
    ohif.show_tools()
    for number, segment in enumerate(NAMES, start=1):
        if number > 1:
            ohif.add_segment()
        ohif.rename_segment(number, segment)
    ohif.brush(4)
    for segment in NAMES:
        dot(ohif, study, segment)
    ohif.select_segment("right kidney landmark")  # which shows it
    ohif.shot("ohif-dots")
    ohif.show_panel()
    assert f"Submitted {', '.join(NAMES)}; 1 of 3 studies are labelled" in ohif.submit()
    marked = landmarks(server, study, tag="final")
    assert set(marked) == set(NAMES)
    for segment, told in marked.items():
        assert distance(study, segment, told["ras"]) < 6, "a slice is 6 mm thick"


def test_update_model_trains_the_landmarks_and_no_organs(ohif: Ohif, server: Server) -> None:
    ohif.page.get_by_role("button", name="Update Model").click()
    ohif.page.get_by_text("The model is trained").first.wait_for()
    ohif.page.get_by_role("button", name="Update Model").wait_for()
    trained = {model: stats for model, stats in server.client.info()["train_stats"].items() if stats}
    assert list(trained) == ["landmarks"]
    assert set(trained["landmarks"]["labels"]) == set(NAMES)


def test_balls_lie_near_the_true_places_in_another_study(ohif: Ohif, pacs: Pacs) -> None:
    study = pacs.studies[1]
    ohif.open(study.study)
    ohif.connect()
    ohif.run("landmarks")
    shown = centres(ohif, study)
    assert set(shown) == set(NAMES)
    for segment, centre in shown.items():
        assert distance(study, segment, centre) < NEAR, segment


def test_landmarks_have_colours_that_can_be_told_apart_and_the_same_in_all_views(ohif: Ohif) -> None:
    first, *others = ({segment: of[segment] for segment in NAMES} for of in ohif.colours().values())
    assert others == [first, first]
    for one, two in itertools.combinations(first.values(), 2):
        assert np.linalg.norm(np.subtract(one, two)) > 100
    assert all(max(colour[:3]) > 200 for colour in first.values()), "dark ones are not seen on dark ground"


def test_a_click_on_a_name_shows_its_ball(ohif: Ohif, pacs: Pacs) -> None:
    study = pacs.studies[1]
    ohif.show_tools()
    for segment, centre in reversed(centres(ohif, study).items()):
        ohif.select_segment(segment)
        *_, z = apply_affine(np.linalg.inv(study.volume.affine), centre)
        assert abs(study.volume.shape[2] - 1 - ohif.shown_slices()[0] - z) <= 1
    ohif.shot("ohif-found")


def test_programs_get_the_points_that_the_viewer_shows(ohif: Ohif, pacs: Pacs, server: Server) -> None:
    study = pacs.studies[1]
    told, shown = landmarks(server, study), centres(ohif, study)
    assert set(told) == set(NAMES)
    for segment, of in told.items():
        assert of["found"]
        assert 0 < of["confidence"] <= 1
        x, y, z = of["ras"]
        np.testing.assert_allclose(of["lps"], [-x, -y, z], atol=1e-3)
        np.testing.assert_allclose(apply_affine(study.volume.affine, of["voxel"]), of["ras"], atol=1e-2)
        assert np.linalg.norm(shown[segment] - of["ras"]) < 4, "less than a voxel"


def test_a_report_of_the_points_is_stored_in_the_pacs(pacs: Pacs, server: Server) -> None:
    study = pacs.studies[1]
    answer = requests.post(f"{server.url}/landmarks/{study.series}/sr", timeout=300)
    assert answer.status_code == 200, answer.text
    wanted = {"Level": "Instance", "Query": {"SOPInstanceUID": answer.json()["instance"]}}
    (found,) = requests.post(f"{pacs.orthanc.url}/tools/find", json=wanted, timeout=60).json()
    file = requests.get(f"{pacs.orthanc.url}/instances/{found}/file", timeout=60).content
    report = pydicom.dcmread(io.BytesIO(file))
    assert (report.Modality, report.StudyInstanceUID) == ("SR", study.study)
    points = read_sr(report)
    for segment, of in landmarks(server, study).items():
        np.testing.assert_allclose(points[segment], of["ras"], atol=1e-2)


def test_the_viewer_had_no_errors(ohif: Ohif) -> None:
    assert not ohif.errors
