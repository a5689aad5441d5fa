"""A volume as DICOM files, read back by our own reader and by ITK."""

from __future__ import annotations

import locale
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_volume
from fewshot.volumes.dicom_writing import new_uid, write_dicom


def oblique() -> Volume:
    """A small CT with 3 mm slices, turned about the x axis, all voxels different."""
    turn = np.deg2rad(12)
    cos, sin = np.cos(turn), np.sin(turn)
    directions = np.array([[-1, 0, 0], [0, -cos, -sin], [0, -sin, cos]])
    affine = np.eye(4)
    affine[:3, :3] = directions * (1.5, 1.6, 3.0)
    affine[:3, 3] = (20.5, -30.25, 40)
    voxels = np.arange(-1000, 64 * 65 * 4 - 1000, dtype=np.float32).reshape(64, 65, 4)
    return Volume(voxels, affine, modality="CT", name="small")


@pytest.mark.parametrize("compress", [False, True])
def test_voxels_and_geometry_come_back(tmp_path: Path, compress: bool) -> None:
    volume = oblique()
    write_dicom(volume, tmp_path, patient="A", description="abdomen", compress=compress)
    again = read_volume(tmp_path)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)
    assert again.modality == "CT"
    assert not again.notes


def test_the_locale_stays(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL), locale.getencoding()
    write_dicom(oblique(), tmp_path, patient="A", description="abdomen")
    assert (locale.setlocale(locale.LC_ALL), locale.getencoding()) == before
    read_volume(tmp_path)
    assert (locale.setlocale(locale.LC_ALL), locale.getencoding()) == before


def test_files_name_patient_series_and_transfer_syntax(tmp_path: Path) -> None:
    series = write_dicom(
        oblique(), tmp_path, patient="A", description="abdomen", modality="MR", compress=True
    )
    reader = sitk.ImageFileReader()
    uids = set()
    for number, path in enumerate(sorted(tmp_path.iterdir()), start=1):
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        tags = {
            key: reader.GetMetaData(key).strip()
            for key in ("0010|0020", "0020|000e", "0008|0060", "0020|0013")
        }
        assert tags == {"0010|0020": "A", "0020|000e": series, "0008|0060": "MR", "0020|0013": str(number)}
        assert float(reader.GetMetaData("0018|0088")) == pytest.approx(3)
        assert b"1.2.840.10008.1.2.4.90" in path.read_bytes()[:400]  # JPEG 2000, without loss
        uids.add(reader.GetMetaData("0008|0018"))
    assert len(uids) == 4


def test_series_of_one_study_share_it(tmp_path: Path) -> None:
    study = new_uid()
    for name in ("a", "b"):
        write_dicom(oblique(), tmp_path / name, patient="A", description=name, study=study)
    reader = sitk.ImageFileReader()
    for name in ("a", "b"):
        reader.SetFileName(str(tmp_path / name / "0001.dcm"))
        reader.ReadImageInformation()
        assert reader.GetMetaData("0020|000d") == study


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="Modality US"):
        write_dicom(oblique(), tmp_path / "x", patient="A", description="", modality="US")
    bright = Volume(oblique().array + 40000, np.eye(4), name="bright")
    with pytest.raises(FewshotError, match="bright has voxels beyond 16 bits"):
        write_dicom(bright, tmp_path / "x", patient="A", description="")
    flat = Volume(oblique().array[:20], np.eye(4))
    with pytest.raises(FewshotError, match="20 x 65 pixels are too small"):
        write_dicom(flat, tmp_path / "x", patient="A", description="", compress=True)
    assert not (tmp_path / "x").exists()
