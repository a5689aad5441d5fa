"""A real Orthanc as datastore."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from fewshot.errors import FewshotError
from fewshot.volumes import read_labels, read_volume, write_labels
from lib.pacs.errors import PacsError
from tests.pacs.conftest import delete
from tests.pacs.making import another, block, make_seg, write_image

pytestmark = pytest.mark.pacs


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def label_names(pacs, uid: str, tag: str = "final") -> list[str]:
    return [entry["name"] for entry in pacs.get_label_info(uid, tag).get("label_info", [])]


@pytest.mark.parametrize(("modality", "compress"), [("CT", False), ("MR", True), ("CR", False)])
def test_every_modality_is_served_as_it_is(orthanc, pacs, tmp_path, modality, compress):
    uid = write_image(tmp_path / "ct", modality=modality, compress=compress)
    orthanc.upload(tmp_path / "ct")
    pacs.refresh()
    copied, original = read_volume(pacs.get_image_uri(uid)), read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(copied.array, original.array)
    np.testing.assert_allclose(copied.affine, original.affine, atol=1e-4)
    info = pacs.get_image_info(uid)
    assert (info["Modality"], info["PatientID"]) == (modality, "P0")
    assert info["StudyInstanceUID"] == pydicom.dcmread(tmp_path / "ct" / "0001.dcm").StudyInstanceUID


@pytest.mark.parametrize("compress", [False, True])
def test_a_subset_of_labels_goes_there_and_back(orthanc, pacs, tmp_path, compress):
    uid = write_image(tmp_path / "ct", compress=compress)
    orthanc.upload(tmp_path / "ct")
    pacs.refresh()
    before = pacs.status()["completed"]
    volume = read_volume(pacs.get_image_uri(uid))
    drawn = block(2, 3, shape=volume.shape)
    write_labels(tmp_path / "label.nii.gz", drawn, volume)
    told = {"label_info": [{"name": name} for name in ("liver", "Milz (groß)", "left kidney")]}
    pacs.save_label(uid, str(tmp_path / "label.nii.gz"), "final", told)
    assert label_names(pacs, uid) == ["Milz (groß)", "left kidney"]
    assert pacs.status()["completed"] == before + 1
    assert uid not in pacs.get_unlabeled_images()
    back = read_labels(pacs.get_label_uri(uid, "final"), volume)
    np.testing.assert_array_equal(back, np.where(drawn, drawn - 1, 0))


def test_labels_by_others_come_count_and_go(orthanc, pacs, tmp_path):
    uid = write_image(tmp_path / "ct")
    orthanc.upload(tmp_path / "ct")
    told: list[list[str]] = []
    pacs._on_change = lambda images, since: told.append([image for image in images if image == uid])
    pacs.follow(0.2)
    assert label_names(pacs, uid) == []

    def store(name: str, seg: pydicom.Dataset) -> None:
        (tmp_path / name).mkdir()
        seg.save_as(tmp_path / name / "seg.dcm")
        orthanc.upload(tmp_path / name)

    first = make_seg(tmp_path / "ct", tmp_path / "first.dcm", {1: "liver"})
    store("1", first)
    wait_for(lambda: label_names(pacs, uid) == ["liver"] and [uid] in told)
    store(
        "2", make_seg(tmp_path / "ct", tmp_path / "2.dcm", {1: "found"}, created="20300101", model="fewshot")
    )
    wait_for(lambda: label_names(pacs, uid, "original") == ["found"])
    assert label_names(pacs, uid) == ["liver"]
    store("3", make_seg(tmp_path / "ct", tmp_path / "3.dcm", {1: "old"}, created="20200101"))
    newest = make_seg(tmp_path / "ct", tmp_path / "4.dcm", {1: "spleen"}, created="20270101")
    store("4", newest)
    wait_for(lambda: label_names(pacs, uid) == ["spleen"])
    store("5", another(newest, ContentDate="20280101", ReferencedSeriesSequence=pydicom.Sequence()))
    pacs.refresh()
    assert label_names(pacs, uid) == ["spleen"]
    delete(orthanc, newest.SeriesInstanceUID)
    wait_for(lambda: label_names(pacs, uid) == ["liver"])
    delete(orthanc, first.SeriesInstanceUID)
    wait_for(lambda: label_names(pacs, uid) == ["old"])


def test_a_deleted_study_is_told_and_forgotten(orthanc, pacs, tmp_path):
    uid = write_image(tmp_path / "ct")
    orthanc.upload(tmp_path / "ct")
    pacs.refresh()
    file = Path(pacs.get_image_uri(uid))
    delete(orthanc, pydicom.dcmread(tmp_path / "ct" / "0001.dcm").StudyInstanceUID)
    pacs.refresh()
    assert uid not in pacs.list_images()
    assert not file.exists()
    with pytest.raises(PacsError, match=f"There is no image {uid}") as failed:
        pacs.get_image_uri(uid)
    assert failed.value.status == 404


def test_a_study_deleted_before_it_was_fetched_is_told(orthanc, pacs, tmp_path):
    uid = write_image(tmp_path / "ct")
    orthanc.upload(tmp_path / "ct")
    pacs.refresh()
    delete(orthanc, uid)
    with pytest.raises(PacsError, match=f"the series {uid} of patient P0.*deleted") as failed:
        pacs.get_image_uri(uid)
    assert failed.value.status == 404


@pytest.mark.parametrize("how", ["missing", "duplicated", "mixed"])
def test_slices_that_are_no_volume_are_told(orthanc, pacs, tmp_path, how):
    uid = write_image(tmp_path / "ct")
    path = tmp_path / "ct" / "0004.dcm"
    if how == "missing":
        path.unlink()
    else:
        odd = another(pydicom.dcmread(path), SeriesInstanceUID=uid)
        if how == "mixed":
            odd.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        odd.save_as(tmp_path / "ct" / "odd.dcm")
    orthanc.upload(tmp_path / "ct")
    pacs.refresh()
    assert uid in pacs.get_unlabeled_images()
    expected = {"missing": "lacks slices", "duplicated": "several slices at one", "mixed": "mixes slices"}
    with pytest.raises(FewshotError, match=f"The series {uid} .*{expected[how]}"):
        pacs.get_image_uri(uid)
    assert uid not in pacs.get_unlabeled_images()


def test_an_orthanc_that_starts_later_is_found(orthanc, pacs, tmp_path):
    uid = write_image(tmp_path / "ct")
    orthanc.upload(tmp_path / "ct")
    orthanc.stop()
    try:
        pacs.follow(0.2)
        assert pacs.status()["total"] == 0
        assert "cannot be reached" in pacs.problem
        with pytest.raises(PacsError, match="cannot be reached"):
            pacs.get_image_uri(uid)
    finally:
        orthanc.start()
        orthanc.wait_until_ready()
    wait_for(lambda: uid in pacs.list_images())
    assert pacs.problem is None
    files: list[str] = []
    threads = [threading.Thread(target=lambda: files.append(pacs.get_image_uri(uid))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(files)) == 1
    assert len(files) == 3
