"""/landmarks/{image} beside a PACS: reports are sent and stored; what was found is not found again."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient

from fewshot.errors import FewshotError
from fewshot.volumes import read_volume
from lib.pacs.sr_reading import read_sr
from tests.pacs.making_sr import VOXELS, make_prediction
from tests.unit.pacs.conftest import submit


@pytest.fixture(scope="module")
def client():
    from monailabel.app import app
    from monailabel.endpoints.user.auth import User, get_current_user

    from lib import routes

    routes.install()
    app.dependency_overrides[get_current_user] = lambda: User(username="ann", roles=[])
    try:
        yield TestClient(app, raise_server_exceptions=False)
    finally:
        app.dependency_overrides.clear()


@pytest.fixture
def asked() -> list[str]:
    """Versions that were asked to find landmarks."""
    return []


@pytest.fixture
def project(fake, folder, open_pacs, asked, monkeypatch):
    """A project on a PACS, behind an app with a model that finds always the same."""
    fake.store(folder)
    project, pacs = open_pacs()

    def find(path, *, version, **_):
        asked.append(version)
        return make_prediction(read_volume(path))

    app = SimpleNamespace(
        project=project,
        datastore=lambda: pacs,
        answers_clicks=lambda model: False,
        prepare_inference=lambda model, image: project.path(image),
        landmark_finder=lambda model: SimpleNamespace(version=lambda asked: "0001", find=find),
    )
    for module in ("inference", "queue", "landmarks"):
        monkeypatch.setattr(f"lib.routes.{module}.app_instance", lambda: app)
    return project


def reports(fake) -> list[pydicom.Dataset]:
    return [file for held in fake.files.values() for file in held.values() if file.Modality == "SR"]


def test_a_report_is_sent(client, project, fake, folder, uid):
    answer = client.get(f"/landmarks/{uid}", params={"format": "sr"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    report = pydicom.dcmread(BytesIO(answer.content))
    assert list(read_sr(report, folder)) == list(VOXELS)
    assert reports(fake) == [], "it is stored only when somebody asks for that"


def test_one_is_stored(client, project, fake, folder, uid, asked):
    answer = client.post(f"/landmarks/{uid}/sr")
    assert answer.status_code == 200, answer.text
    (report,) = reports(fake)
    told = answer.json()
    assert told == {
        "image": uid,
        "study": report.StudyInstanceUID,
        "series": report.SeriesInstanceUID,
        "instance": report.SOPInstanceUID,
    }
    assert list(read_sr(report, folder)) == list(VOXELS)
    client.post(f"/landmarks/{uid}/sr")
    assert len(reports(fake)) == 2
    assert asked == ["0001"], "what was found is known"


def test_what_people_marked_is_reported_as_theirs(client, project, fake, folder, uid, asked, monkeypatch):
    drawn = np.zeros(read_volume(folder).shape, np.uint8)
    drawn[2, 1, 1] = 1
    submit(project.datastore, uid, drawn, ["tip landmark"])
    monkeypatch.setattr("lib.routes.landmarks.settings", SimpleNamespace(MONAI_LABEL_AUTH_ENABLE=True))
    answer = client.get(f"/landmarks/{uid}", params={"format": "sr", "tag": "final"})
    assert client.post(f"/landmarks/{uid}/sr", params={"tag": "final"}).status_code == 200
    (stored,) = reports(fake)
    for report in (pydicom.dcmread(BytesIO(answer.content)), stored):
        assert list(read_sr(report, folder)) == ["tip landmark"]
        names = [item.PersonName for item in report.ContentSequence if "PersonName" in item]
        assert names == ["ann^"]
        assert report.PreliminaryFlag == "FINAL"
    assert asked == []


def test_what_is_known_is_told_in_every_form(client, project, uid, asked):
    plain = client.get(f"/landmarks/{uid}").json()
    assert list(plain["landmarks"]) == [*VOXELS, "Kinn"]
    markups = client.get(f"/landmarks/{uid}", params={"format": "mrk"}).json()
    states = [control["positionStatus"] for control in markups["markups"][0]["controlPoints"]]
    assert states == ["defined", "defined", "missing"]
    np.testing.assert_allclose(
        [control["position"] for control in markups["markups"][0]["controlPoints"][:2]],
        [plain["landmarks"][name]["lps"] for name in VOXELS],
        atol=1e-3,
    )
    assert asked == ["0001"]


def test_what_the_pacs_does_not_take_is_told(client, project, fake, uid):
    client.get(f"/landmarks/{uid}")
    fake.refuses = True
    answer = client.post(f"/landmarks/{uid}/sr")
    assert answer.status_code >= 400
    assert "refused the report" in answer.json()["detail"]
    assert reports(fake) == []


def test_what_cannot_be_found_is_told(client, project, uid, monkeypatch):
    def fails(*_, **__):
        raise FewshotError("The image is dark; take another one.")

    broken = SimpleNamespace(version=lambda asked: "0001", find=fails)
    from lib.routes import landmarks

    monkeypatch.setattr(landmarks.app_instance(), "landmark_finder", lambda model: broken)
    answer = client.get(f"/landmarks/{uid}", params={"format": "sr"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "The image is dark; take another one.")
    assert project.engine.queue.report() == {"running": None, "waiting": []}
