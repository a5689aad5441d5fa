"""The loop over HTTP as 3D Slicer plays it, on studies in a real Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from fewshot.phantoms import ORGANS, make_study
from fewshot.volumes.dicom_writing import write_dicom
from tests.pacs.conftest import delete
from tests.pacs.making import make_seg
from tests.server.conftest import SHAPE, Server, partial, sentence, wait_for
from tests.server.slicer import Slicer, dice

pytestmark = [pytest.mark.pacs, pytest.mark.server]


@pytest.fixture(scope="module")
def studies(orthanc, tmp_path_factory) -> dict[str, tuple[Path, np.ndarray]]:
    """Three made-up studies in Orthanc: files and true labels by series."""
    root, studies = tmp_path_factory.mktemp("dicom"), {}
    for seed in range(3):
        volume, truth = make_study(seed, shape=SHAPE)
        folder = root / str(seed)
        studies[write_dicom(volume, folder, patient=f"phantom-{seed}", description="abdomen")] = folder, truth
        orthanc.upload(folder)
    return studies


@pytest.fixture(scope="module")
def server(orthanc, studies, tmp_path_factory) -> Iterator[Server]:
    """A server that started while Orthanc was down."""
    root = tmp_path_factory.mktemp("server")
    orthanc.stop()
    server = Server(
        root,
        orthanc.dicomweb,
        conf={"poll": "0.5"},
        environment={"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")},
    )
    try:
        server.wait()
        said = requests.get(f"{server.url}/info/", timeout=60).json()["datastore"]
        assert (said["total"], said["completed"]) == (0, 0)
        assert "Waiting for it" in server.log.read_text()
        orthanc.start()
        orthanc.wait_until_ready()
        wait_for(lambda: counts(server)[0] >= 3, 60)
        yield server
    finally:
        server.stop()
        if not orthanc.running:
            orthanc.start()
            orthanc.wait_until_ready()


def counts(server: Server) -> tuple[int, int]:
    said = requests.get(f"{server.url}/info/", timeout=60).json()["datastore"]
    return said["total"], said["completed"]


def test_submit_train_and_infer_over_rest(server, orthanc, studies, tmp_path):
    total, before = counts(server)
    first, second, third = studies
    slicer = Slicer(server.url, tmp_path / "slicer")
    slicer.connect()
    like = tmp_path / "like.nii.gz"
    like.write_bytes(
        requests.get(f"{server.url}/datastore/image", params={"image": first}, timeout=300).content
    )
    drawn = to_grid(partial(studies[first][1]), like)
    answer = slicer.submit(first, like, {"empty": drawn > 9, "liver": drawn == 1, "spleen": drawn == 2})
    assert answer["label"] == first
    assert counts(server) == (total, before + 1)
    assert slicer.can_train

    # somebody draws in OHIF, which tells the PACS alone
    seg = tmp_path / "seg"
    seg.mkdir()
    folder, truth = studies[second]
    names = {ORGANS[name]: name for name in ("liver", "spleen")}
    shown = np.where(np.isin(truth, list(names)), truth, 0).astype(np.uint8)
    stored = make_seg(folder, seg / "seg.dcm", names, labels=shown)
    orthanc.upload(seg)
    wait_for(lambda: counts(server) == (total, before + 2), 60)
    assert {"liver", "spleen"} <= set(requests.get(f"{server.url}/info/", timeout=60).json()["labels"])

    slicer.train("fewshot_contrastive", max_epochs=6)
    stats = slicer.info["train_stats"]["fewshot_contrastive"]
    assert set(stats["templates"]) >= {first, second}
    assert {"liver", "spleen"} <= set(stats["labels"])
    like.write_bytes(
        requests.get(f"{server.url}/datastore/image", params={"image": third}, timeout=300).content
    )
    found, _ = slicer.segment("fewshot_contrastive", third, like)
    assert dice(found["liver"], to_grid(studies[third][1] == ORGANS["liver"], like)) > 0.3

    delete(orthanc, stored.SeriesInstanceUID)
    wait_for(lambda: counts(server) == (total, before + 1), 60)
    assert sentence(server.infer("fewshot_contrastive", "1.2.3"), 404).startswith("There is no image 1.2.3")

    # a study that is deleted between two trainings
    delete(orthanc, pydicom.dcmread(next(folder.iterdir())).StudyInstanceUID)
    wait_for(lambda: counts(server) == (total - 1, before + 1), 60)
    assert "no image" in sentence(server.infer("fewshot_contrastive", second), 404)
    orthanc.stop()
    try:
        refused = requests.post(f"{server.url}/train/fewshot_contrastive", json={}, timeout=300)
        assert "cannot be reached" in sentence(refused, 503)
        assert counts(server) == (total - 1, before + 1)
    finally:
        orthanc.start()
        orthanc.wait_until_ready()


def to_grid(labels: np.ndarray, like: Path) -> np.ndarray:
    """Labels of a phantom on the grid of its copy from the PACS, which is the same."""
    assert nib.load(like).shape == labels.shape
    return labels
