"""What a PACS has: asked for cheaply, and which segmentation counts."""

from __future__ import annotations

import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from lib.pacs.catalog import Catalog
from lib.pacs.client import make_client
from lib.pacs.errors import PacsError
from lib.pacs.listing import AGAIN
from tests.pacs.making import another, write_image


def by_model(seg: pydicom.Dataset, **changes: object) -> pydicom.Dataset:
    copy = another(seg, **changes)
    for segment in copy.SegmentSequence:
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", "fewshot"
    return copy


def test_a_pacs_where_nothing_changed_is_asked_once(fake, made):
    folder, uid, seg = made
    fake.store(folder, seg)
    catalog = Catalog(make_client(fake.url))
    contents = catalog.ask()
    assert [(series.uid, series.modality, series.instances) for series in contents.images.values()] == [
        (uid, "CT", 8)
    ]
    assert contents.images[uid].info["PatientID"] == "P0"
    assert [segment.name for segment in contents.persons[uid].header.segments] == ["liver", "spleen"]
    assert len(fake.queries()) == 3, "all series, whether more follow, and the headers of the SEG"
    assert catalog.ask() == contents
    assert fake.queries() == ["GET /dicom-web/series"]


def test_a_search_filter_holds_for_images_alone(fake, made, tmp_path):
    folder, uid, seg = made
    write_image(tmp_path / "mr", 1, modality="MR")
    fake.store(folder, seg, tmp_path / "mr")
    catalog = Catalog(make_client(fake.url), {"Modality": "CT"})
    contents = catalog.ask()
    assert (list(contents.images), list(contents.persons)) == ([uid], [uid])
    fake.queries()
    catalog.ask()
    assert len(fake.queries()) == 2


def test_every_modality_with_images_is_an_image_unless_some_are_named(fake, made, tmp_path, caplog):
    folder, uid, seg = made
    mr = write_image(tmp_path / "mr", 1, modality="MR")
    report = another(pydicom.dcmread(folder / "0001.dcm"), Modality="SR")
    fake.store(folder, seg, tmp_path / "mr", report)
    assert set(Catalog(make_client(fake.url)).ask().images) == {uid, mr}
    narrow = Catalog(make_client(fake.url), modalities=["mr"]).ask()
    assert (set(narrow.images), narrow.persons) == ({mr}, {})
    told = [record for record in caplog.records if record.name == "lib.pacs.catalog"]
    assert not told, "a label of an image that nobody wants is no news"


@pytest.mark.parametrize(("count", "page"), [(6, 6), (7, 6), (13, 6), (5, 1)])
def test_an_answer_that_was_cut_is_completed(fake, made, count, page):
    first = pydicom.dcmread(made[0] / "0001.dcm")
    for _ in range(count):
        fake.store(another(first))
    fake.page = page
    catalog = Catalog(make_client(fake.url))
    for _ in range(3):
        assert len(catalog.ask().images) == count


def test_entries_that_are_no_series_or_come_twice_count_for_what_follows(fake, made):
    first = pydicom.dcmread(made[0] / "0001.dcm")
    for _ in range(4):
        fake.store(another(first))
    nonsense = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": ["../x"]}}
    fake.extra = [nonsense, nonsense]
    fake.page = 3
    assert len(Catalog(make_client(fake.url)).ask().images) == 4


@pytest.mark.parametrize("offsets", ["yes", "refused", "ignored"])
def test_a_pacs_that_does_not_cut_its_answers_is_seldom_asked_what_follows(fake, made, offsets):
    first = pydicom.dcmread(made[0] / "0001.dcm")
    fake.store(another(first))
    fake.offsets = offsets
    catalog = Catalog(make_client(fake.url))
    catalog.ask()
    assert len(fake.queries()) == 2
    for _ in range(AGAIN):
        catalog.ask()
    assert len(fake.queries()) == AGAIN
    catalog.ask()
    assert len(fake.queries()) == 2, "it may have been set up anew"
    fake.store(another(first))
    assert len(catalog.ask().images) == 2
    assert len(fake.queries()) == 2, "more entries than ever may be cut"


def test_a_pacs_that_begins_to_cut_its_answers_is_found_out(fake, made):
    first = pydicom.dcmread(made[0] / "0001.dcm")
    fake.page = 3
    for _ in range(3):
        fake.store(another(first))
    catalog = Catalog(make_client(fake.url))
    assert len(catalog.ask().images) == 3
    fake.store(another(first))
    asks = [len(catalog.ask().images) for _ in range(AGAIN + 2)]
    assert asks[-2:] == [4, 4]


def test_a_person_goes_before_a_model_and_then_the_newest(fake, made):
    folder, uid, seg = made
    older = another(seg, ContentDate="20250101")
    newest_model = by_model(seg, ContentDate="20270101")
    fake.store(folder, newest_model, older, seg, by_model(seg, ContentDate="20240101"))
    catalog = Catalog(make_client(fake.url))
    contents = catalog.ask()
    assert contents.persons[uid].series == seg.SeriesInstanceUID
    assert contents.models[uid].series == newest_model.SeriesInstanceUID
    fake.delete(seg.SeriesInstanceUID)
    assert catalog.ask().persons[uid].series == older.SeriesInstanceUID
    fake.delete(older.SeriesInstanceUID)
    assert uid not in catalog.ask().persons


def test_labels_of_the_same_moment_are_always_chosen_alike(fake, made):
    folder, uid, seg = made
    twin = another(seg)
    for order in ((seg, twin), (twin, seg)):
        fake.files.clear()
        fake.store(folder, *order)
        chosen = Catalog(make_client(fake.url)).ask().persons[uid].series
        assert chosen == max(seg.SeriesInstanceUID, twin.SeriesInstanceUID)


def test_an_unusable_label_gives_way_to_an_older_and_is_told_once(fake, made, caplog):
    folder, uid, seg = made
    newer = another(seg, ContentDate="20270101", ReferencedSeriesSequence=pydicom.Sequence())
    fake.store(folder, seg, newer)
    catalog = Catalog(make_client(fake.url))
    assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID
    told = [record.message for record in caplog.records if newer.SeriesInstanceUID in record.message]
    assert len(told) == 1
    assert "is left out: " in told[0]
    fake.queries()
    catalog.ask()
    assert fake.queries() == ["GET /dicom-web/series"]
    assert len(caplog.records) == len(told)


def test_a_label_left_out_for_its_voxels_is_tried_again_when_the_image_changes(fake, made, caplog):
    folder, uid, seg = made
    older = another(seg, ContentDate="20250101")
    fake.store(folder, seg, older)
    catalog = Catalog(make_client(fake.url))
    contents = catalog.ask()
    left_out = catalog.leave_out(contents.persons[uid], contents.images[uid], "it lies elsewhere.")
    assert left_out.persons[uid].series == older.SeriesInstanceUID
    assert f"{seg.SeriesInstanceUID} of the image {uid} is left out: it lies elsewhere." in caplog.text
    assert catalog.ask().persons[uid].series == older.SeriesInstanceUID
    fake.store(another(pydicom.dcmread(folder / "0001.dcm"), SeriesInstanceUID=uid))
    assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID


def test_a_label_of_an_image_that_is_not_there_is_told_once(fake, made, caplog):
    folder, uid, seg = made
    fake.store(seg)
    catalog = Catalog(make_client(fake.url))
    for _ in range(2):
        assert catalog.ask().persons == {}
    assert [f"belongs to the series {uid}" in record.message for record in caplog.records] == [True]
    fake.store(folder)
    assert uid in catalog.ask().persons


def test_a_label_that_the_pacs_fails_to_send_is_asked_for_again(fake, made, caplog):
    folder, uid, seg = made
    fake.store(folder, seg)
    fake.broken = {"metadata"}
    catalog = Catalog(make_client(fake.url))
    for _ in range(2):
        contents = catalog.ask()
        assert (list(contents.images), contents.persons) == ([uid], {})
    assert len(caplog.records) == 1
    fake.broken.clear()
    assert uid in catalog.ask().persons


def test_a_pacs_that_stops_answering_leaves_what_is_known(fake, made):
    folder, _, seg = made
    fake.store(folder, seg)
    catalog = Catalog(make_client(fake.url))
    contents = catalog.ask()
    fake.status = 500
    with pytest.raises(PacsError):
        catalog.ask()
    assert catalog.contents() == contents
