"""Results as DICOM segmentations, and files of an inference whose request is cut."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from fastapi import BackgroundTasks, FastAPI, UploadFile
from fastapi.testclient import TestClient

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.endpoints.user.auth import User

from fewshot.volumes import read_volume, write_labels
from lib.images import Images
from lib.pacs.client import make_client
from lib.pacs.datastore import Pacs
from lib.pacs.seg_reading import read_header, read_seg
from lib.queueing import InferenceQueue
from lib.routes import inference
from lib.routes.errors import tell_errors
from lib.studies import StudiesDescription
from tests.pacs.fake import FakePacs
from tests.pacs.making import SHAPE, write_image

pytestmark = pytest.mark.server
NAMES = {"liver": 1, "spleen": 2, "kidney": 3}


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the app, on a folder."""
    images = Images(StudiesDescription())
    stand_in = SimpleNamespace(
        info=dict,
        datastore=lambda: None,
        prepare_inference=lambda model, image: None,
        answers_clicks=lambda model: False,
        project=SimpleNamespace(engine=SimpleNamespace(queue=InferenceQueue()), images=images),
    )
    for module in ("monailabel.endpoints.infer", "lib.routes.inference", "lib.routes.queue"):
        monkeypatch.setattr(f"{module}.app_instance", lambda: stand_in)
    monkeypatch.setattr("lib.routes.segmentations.app_instance", lambda: stand_in)
    return stand_in


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(inference.router)
    app.middleware_stack = app.build_middleware_stack()
    tell_errors(app)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def pacs(instance, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The app on a PACS with one CT, whose model draws `labels`."""
    uid = write_image(tmp_path / "ct")
    found = SimpleNamespace(uid=uid, folder=tmp_path / "ct", labels=np.zeros(SHAPE, np.uint8), drawn=[])

    def infer(request):
        volume = read_volume(Path(datastore.get_image_uri(request["image"])))
        file = tmp_path / f"drawn{request['result_extension']}"
        write_labels(file, found.labels, volume)
        found.drawn.append(file)
        return {"file": str(file), "label": str(file), "params": {"label_names": NAMES}}

    with FakePacs() as fake:
        fake.store(tmp_path / "ct")
        datastore = Pacs(
            make_client(fake.url), cache=tmp_path / "cache", check=lambda *_: None, names=lambda *_: {}
        )
        datastore.refresh()
        instance.datastore, instance.infer = lambda: datastore, infer
        yield found


def ask(client: TestClient, image: str, **params: object):
    return client.post(
        f"/infer/fewshot?image={image}&output=dicom_seg", data={"params": json.dumps({**params})}
    )


def written() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("seg-*.dcm"))


def test_each_label_has_its_name_whichever_are_found(client, pacs):
    before = set(written())
    pacs.labels[1:4, 1:4, 1:3] = NAMES["spleen"]
    pacs.labels[5:7, 5:7, 1:3] = NAMES["kidney"]
    answer = ask(client, pacs.uid, client_id="ann", result_extension=".nii.gz")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom"), answer.text
    seg = pydicom.dcmread(BytesIO(answer.content))
    header = read_header(seg)
    assert [segment.name for segment in header.segments] == ["spleen", "kidney"]
    assert (header.by_model, header.image_series) == (True, pacs.uid)
    assert {segment.SegmentAlgorithmName for segment in seg.SegmentSequence} == {"fewshot"}
    found = read_seg(seg, read_volume(pacs.folder))
    np.testing.assert_array_equal(found, np.maximum(pacs.labels, 1) - 1)
    assert not [file for file in pacs.drawn if file.exists()]
    assert set(written()) == before


def test_an_empty_result_is_told(client, pacs):
    before = set(written())
    answer = ask(client, pacs.uid)
    assert (answer.status_code, "fewshot found nothing in" in answer.json()["detail"]) == (422, True)
    assert not [file for file in pacs.drawn if file.exists()]
    assert set(written()) == before


def test_a_folder_of_studies_has_no_dicom(client, instance):
    answer = ask(client, "ct_1")
    assert (answer.status_code, "needs images from a DICOMweb server" in answer.json()["detail"]) == (
        422,
        True,
    )


def test_an_uploaded_image_has_no_series(client, pacs):
    answer = client.post(
        "/infer/fewshot?output=dicom_seg", data={"params": "{}"}, files={"file": ("a.nii", b"x")}
    )
    assert (answer.status_code, "name it as the image" in answer.json()["detail"]) == (422, True)


def test_a_request_that_is_cut_leaves_no_files(instance, tmp_path: Path):
    begun, go, drawn = threading.Event(), threading.Event(), tmp_path / "drawn.nrrd"

    def infer(request):
        drawn.write_bytes(b"result")
        uploaded.append(Path(request["image"]))
        begun.set()
        go.wait(20)
        return {"file": str(drawn), "params": {}}

    async def connected() -> bool:
        return False

    async def ask_and_cut() -> None:
        request = SimpleNamespace(client=None, is_disconnected=connected)
        upload = UploadFile(BytesIO(b"image"), filename="a.cut.nii")
        asked = asyncio.create_task(
            inference.infer(
                *(request, BackgroundTasks(), "fewshot", "", "", "{}", upload, None, None),
                User(username="ann", roles=[]),
            )
        )
        await asyncio.to_thread(begun.wait, 20)
        assert uploaded[0].exists()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not uploaded[0].exists()

    uploaded: list[Path] = []
    instance.infer = infer
    asyncio.run(ask_and_cut())
    go.set()
    end = time.monotonic() + 20
    while drawn.exists():
        assert time.monotonic() < end, "nobody removed the result"
        time.sleep(0.02)
    assert instance.project.engine.queue.report() == {"running": None, "waiting": []}
