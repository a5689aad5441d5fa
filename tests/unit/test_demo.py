"""The demo beside a PACS, as far as it needs none: studies as DICOM, ids, ports, what is drawn and said."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.demo import loop, run_demo
from fewshot.demo.annotator import Annotator
from fewshot.demo.folder import DemoFolder
from fewshot.demo.server import free_port, usual_port
from fewshot.demo.staying import addresses
from fewshot.demo.studies import send_studies
from fewshot.errors import FewshotError
from fewshot.phantoms import LANDMARKS, ORGANS, make_phantom, make_study, write_studies
from fewshot.volumes import read_volume

SMALL = (48, 40, 20)


class FakeOrthanc:
    def __init__(self) -> None:
        self.sent: list[Path] = []

    def upload(self, folder: Path) -> int:
        self.sent.append(folder)
        return len(list(folder.iterdir()))


def test_the_pacs_gets_the_same_studies_as_axial_slices(tmp_path):
    orthanc, shown = FakeOrthanc(), []
    served = send_studies(orthanc, tmp_path, 2, seed=3, show=lambda *done: shown.append(done))
    assert list(served) == [folder.name for folder in orthanc.sent] == ["phantom_03", "phantom_04"]
    assert shown == [(0, 2), (1, 2)]
    assert len({uid for each in served.values() for uid in each}) == 4
    pydicom = pytest.importorskip("pydicom")
    for number, (name, each) in zip((3, 4), served.items(), strict=True):
        expected, _ = make_study(number, orientation="LPS")
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found.array, expected.array)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
        slices = [pydicom.dcmread(path) for path in sorted((tmp_path / name).iterdir())]
        assert {(file.SeriesInstanceUID, file.StudyInstanceUID, str(file.PatientID)) for file in slices} == {
            (each.image, each.study, name)
        }


class FakeClient:
    """A server that knows the studies by other names and sends them in another voxel order."""

    def __init__(self, image: str, seed: int) -> None:
        self.image, self.seed = image, seed
        self.submitted: tuple[str, np.ndarray, np.ndarray, list[str]] | None = None

    def next_sample(self, strategy: str) -> str:
        return self.image

    def download(self, image: str, path: Path) -> Path:
        assert image == self.image
        volume, _ = make_study(self.seed, shape=SMALL, orientation="LPS")
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume.array.astype(np.int16), volume.affine), path)
        return path

    def submit_label(self, image: str, label: Path, names: list[str]) -> None:
        file = nib.load(label)
        self.submitted = image, np.asarray(file.dataobj), file.affine, names


@pytest.fixture
def truth(tmp_path):
    """Studies 0 (RAS) and 1 (LAS)."""
    write_studies(tmp_path / "truth", 2, shape=SMALL, landmarks=True)
    return Dataset.open(tmp_path / "truth")


def test_the_annotator_draws_on_the_image_as_the_server_sends_it(tmp_path, truth):
    client = FakeClient("1.2.3", seed=1)
    annotator = Annotator(
        client, truth, DemoFolder(tmp_path / "demo"), {"phantom_00": "1.2", "phantom_01": "1.2.3"}
    )
    name, drawn = annotator.label_next_sample(4)
    assert name == "phantom_01"
    image, labels, affine, names = client.submitted
    volume, whole, points = make_phantom(1, shape=SMALL, orientation="LPS")
    assert image == "1.2.3"
    assert names == [*ORGANS, *(f"{landmark} landmark" for landmark in LANDMARKS)]
    np.testing.assert_allclose(affine, volume.affine)
    dotted = labels > len(ORGANS)
    organs = np.where(dotted, 0, labels)
    np.testing.assert_array_equal(organs[..., drawn], np.where(dotted, 0, whole)[..., drawn])
    assert not np.delete(organs, drawn, axis=2).any()
    for number, point in enumerate(points.values(), start=len(ORGANS) + 1):
        dot = nib.affines.apply_affine(affine, np.argwhere(labels == number))
        assert 1 <= len(dot) < 30
        assert np.linalg.norm(dot.mean(axis=0) - point) < nib.affines.voxel_sizes(affine).max() / 2


def test_an_image_that_is_none_of_the_studies_is_refused(tmp_path, truth):
    annotator = Annotator(
        FakeClient("9.9", seed=0), truth, DemoFolder(tmp_path / "demo"), {"phantom_00": "1.2"}
    )
    with pytest.raises(FewshotError, match=r"asks for 9\.9"):
        annotator.label_next_sample(4)


def test_a_usual_port_is_taken_only_where_it_is_free():
    port = free_port()
    assert usual_port(port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert usual_port(port) not in (port, 0)


def test_without_orthanc_an_earlier_demo_stays_as_it_was(tmp_path, monkeypatch, capsys):
    with DemoFolder(tmp_path).held():
        (tmp_path / "results.json").touch()
    monkeypatch.setattr(shutil, "which", lambda *name, **more: None)
    assert run_demo(tmp_path, dicom=True) == 1
    assert "Orthanc is not installed; " in capsys.readouterr().err
    assert (tmp_path / "results.json").exists()


def test_another_port_is_told(monkeypatch, capsys):
    demo = loop.Demo(serve=True, dicom=True, by_hand=False, studies=2, template_slices=4, seed=0, port=None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = taken.getsockname()[1]
        port = loop._port("Orthanc", usual, demo)
    assert port not in (usual, None)
    assert f"Port {usual} is taken: Orthanc listens on {port}." in capsys.readouterr().err


class TestAddresses:
    def test_a_pacs_is_for_ohif(self):
        said = dict(addresses("http://a:1", "http://a:2", "1.2", trained=True))
        assert said[""] == "http://a:1/ohif/monai-label?StudyInstanceUIDs=1.2"
        assert "http://a:1" in said["3D Slicer"]
        assert "Train" not in said["3D Slicer"]
        assert "http://a:2/dicom-web" in said["Orthanc"]

    def test_a_folder_is_not(self):
        said = dict(addresses("http://a:1", None, "", trained=False))
        assert "OHIF" not in said
        assert "--dicom" in said[""]
        assert "Train" in said["3D Slicer"]
