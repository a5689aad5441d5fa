"""Reports on landmarks on their way into a PACS, where they are neither images nor labels."""

from __future__ import annotations

import pydicom
import pytest

from fewshot.errors import FewshotError
from fewshot.volumes import read_volume
from lib.pacs.client import make_client
from lib.pacs.errors import PacsError
from lib.pacs.sr_reading import read_sr
from lib.pacs.sr_submitting import submit_sr
from tests.pacs.making_sr import VOXELS, make_prediction


def reports(fake) -> list[pydicom.Dataset]:
    return [file for held in fake.files.values() for file in held.values() if file.Modality == "SR"]


def test_each_submission_is_a_series_of_the_images_study(fake, folder):
    prediction = make_prediction(read_volume(folder))
    stored = [submit_sr(make_client(fake.url), prediction, folder) for _ in range(2)]
    assert {(of.study, of.series) for of in stored} == set(fake.files)
    assert {of.instance for of in stored} == {report.SOPInstanceUID for report in reports(fake)}
    assert len({of.series for of in stored}) == 2
    for report in reports(fake):
        assert report.SeriesDescription == "Landmarks"
        assert report.StudyInstanceUID == pydicom.dcmread(folder / "0001.dcm").StudyInstanceUID
        assert list(read_sr(report, folder)) == list(VOXELS)


def test_a_report_is_neither_an_image_nor_a_label(fake, folder, uid, open_pacs):
    fake.store(folder)
    submit_sr(make_client(fake.url), make_prediction(read_volume(folder)), folder)
    _, pacs = open_pacs()
    assert pacs.list_images() == [uid]
    assert pacs.get_labels_by_image_id(uid) == {}
    assert pacs.get_unlabeled_images() == [uid]


def test_what_the_pacs_does_not_take_is_told(fake, folder):
    prediction, client = make_prediction(read_volume(folder)), make_client(fake.url)
    fake.refuses = True
    with pytest.raises(PacsError, match=r"refused the report \(reason 0xa700\)"):
        submit_sr(client, prediction, folder)
    fake.refuses = False
    fake.stop()
    with pytest.raises(PacsError, match="cannot be reached"):
        submit_sr(client, prediction, folder)
    assert reports(fake) == []


def test_what_cannot_be_written_is_not_sent(fake, folder):
    prediction = make_prediction(read_volume(folder), {"left\\right": (1, 1, 1)})
    with pytest.raises(FewshotError, match="cannot hold the landmark name"):
        submit_sr(make_client(fake.url), prediction, folder)
    assert fake.queries() == []
