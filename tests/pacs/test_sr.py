"""Landmarks in a real Orthanc: stored, found, retrieved, and at the same place."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import apply_affine

from fewshot.volumes import read_volume
from lib.pacs.client import make_client
from lib.pacs.sr_reading import read_sr
from lib.pacs.sr_submitting import submit_sr
from tests.pacs.making import write_image
from tests.pacs.making_sr import make_prediction
from tests.unit.pacs.test_seg_writing import save_series

pytestmark = pytest.mark.pacs


@pytest.mark.parametrize("kind", ["turned", "oblique", "radiograph"])
def test_landmarks_go_there_and_back(orthanc, pacs, tmp_path, kind):
    if kind == "turned":
        write_image(tmp_path / "image")
    else:
        placed = kind == "oblique"
        save_series(tmp_path / "image", slices=6 if placed else 1, tilt=0.6, placed=placed)
    orthanc.upload(tmp_path / "image")
    pacs.refresh()
    images = pacs.list_images()
    volume, client = read_volume(tmp_path / "image"), make_client(orthanc.dicomweb)
    voxels = {"Spitze links": (3.25, 2.5, volume.shape[2] // 2), "größte Höhle": (1.0, 0.75, 0.0)}
    stored = [submit_sr(client, make_prediction(volume, voxels), tmp_path / "image") for _ in range(2)]

    found = client.search_for_series(stored[0].study, search_filters={"Modality": "SR"})
    assert {entry["0020000E"]["Value"][0] for entry in found} == {of.series for of in stored}
    for of in stored:
        report = client.retrieve_instance(of.study, of.series, of.instance)
        assert str(report.PatientID) in ("P0", "p1")
        read = read_sr(report, tmp_path / "image")
        assert list(read) == list(voxels)
        for name, voxel in voxels.items():
            np.testing.assert_allclose(read[name], apply_affine(volume.affine, voxel), atol=1e-3)
    pacs.refresh()
    assert pacs.list_images() == images
