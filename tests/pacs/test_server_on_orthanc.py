"""The server as a process beside a real Orthanc: 3D Slicer's loop, labels of others, and what is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from fewshot.demo.orthanc import Orthanc
from fewshot.phantoms import ORGANS, make_study
from fewshot.volumes import read_labels, read_volume, write_labels
from fewshot.volumes.dicom_writing import write_dicom
from lib.pacs.seg_reading import read_seg
from tests.pacs.conftest import delete
from tests.pacs.making import make_seg
from tests.programs import program
from tests.server.conftest import SHAPE, Server, sentence, wait_for
from tests.server.slicer import Slicer, play

pytestmark = [pytest.mark.pacs, pytest.mark.server]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory) -> Iterator[Orthanc]:
    """An Orthanc in which nobody has labelled anything."""
    program("Orthanc", package="orthanc orthanc-dicomweb")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def studies(orthanc, tmp_path_factory) -> dict[str, tuple[Path, np.ndarray]]:
    """Three made-up studies in Orthanc: files and true labels by series."""
    root, studies = tmp_path_factory.mktemp("dicom"), {}
    for seed in range(3):
        volume, truth = make_study(seed, shape=SHAPE)
        folder = root / str(seed)
        uid = write_dicom(volume, folder, patient=f"phantom-{seed}", description="abdomen")
        drawn = root / f"{seed}.nii.gz"
        write_labels(drawn, truth, volume)
        # in the order of slices that DICOM files are read in, which may be the other way round
        studies[uid] = folder, read_labels(drawn, read_volume(folder))
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
        wait_for(lambda: counts(server)[0] == 3, 60)
        yield server
    finally:
        server.stop()


def counts(server: Server) -> tuple[int, int]:
    said = requests.get(f"{server.url}/info/", timeout=60).json()["datastore"]
    return said["total"], said["completed"]


def stored(orthanc: Orthanc) -> dict[str, list[pydicom.Dataset]]:
    """The SEGs in Orthanc by the image that they belong to."""
    found: dict[str, list[pydicom.Dataset]] = {}
    for series in requests.get(f"{orthanc.url}/series", params={"expand": ""}, timeout=60).json():
        if series["MainDicomTags"]["Modality"] == "SEG":
            file = requests.get(f"{orthanc.url}/instances/{series['Instances'][0]}/file", timeout=60).content
            seg = pydicom.dcmread(BytesIO(file))
            found.setdefault(seg.ReferencedSeriesSequence[0].SeriesInstanceUID, []).append(seg)
    return found


def test_slicer_plays_the_whole_loop(server, orthanc, studies, tmp_path):
    masks = {
        image: {organ: truth == value for organ, value in ORGANS.items()}
        for image, (_, truth) in studies.items()
    }
    play(Slicer(server.url, tmp_path / "slicer"), masks, learned=("liver", "spleen"))
    segs = stored(orthanc)
    assert len(segs) == 2
    names = [[str(each.SegmentLabel) for each in seg.SegmentSequence] for (seg,) in segs.values()]
    assert sorted(map(sorted, names)) == [["liver", "spine", "spleen"], ["liver", "spleen"]]
    for image, (seg,) in segs.items():
        assert {each.SegmentAlgorithmType for each in seg.SegmentSequence} == {"MANUAL"}
        drawn = read_seg(seg, read_volume(studies[image][0]))
        for value, each in enumerate(seg.SegmentSequence, start=1):
            np.testing.assert_array_equal(drawn == value, masks[image][str(each.SegmentLabel)])


def test_labels_of_others_come_and_go(server, orthanc, studies, tmp_path):
    """After Slicer's loop, one image is left; somebody draws it in OHIF, which tells the PACS alone."""
    assert counts(server) == (3, 2)
    (image,) = set(studies) - set(stored(orthanc))
    folder, truth = studies[image]
    seg = tmp_path / "seg"
    seg.mkdir()
    names = {ORGANS[name]: name for name in ("liver", "kidney_left")}
    shown = np.where(np.isin(truth, list(names)), truth, 0).astype(np.uint8)
    drawn = make_seg(folder, seg / "seg.dcm", names, labels=shown)
    orthanc.upload(seg)
    wait_for(lambda: counts(server) == (3, 3), 60)
    wait_for(lambda: "kidney_left" in requests.get(f"{server.url}/info/", timeout=60).json()["labels"], 60)
    delete(orthanc, drawn.SeriesInstanceUID)
    wait_for(lambda: counts(server) == (3, 2), 60)


def test_what_is_gone_is_said(server, orthanc, studies):
    image = next(iter(set(studies) - set(stored(orthanc))))
    assert sentence(server.infer("fewshot", "1.2.3"), 404).startswith("There is no image 1.2.3")
    delete(orthanc, pydicom.dcmread(next(studies[image][0].iterdir())).StudyInstanceUID)
    wait_for(lambda: counts(server) == (2, 2), 60)
    assert "no image" in sentence(server.infer("fewshot", image), 404)
    orthanc.stop()
    refused = requests.post(f"{server.url}/train/fewshot", json={}, timeout=300)
    assert "cannot be reached" in sentence(refused, 503)
    assert counts(server) == (2, 2)
