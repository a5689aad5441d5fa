"""Headers of segmentations: one that is damaged, slow, huge or a lie keeps no other from being seen."""

from __future__ import annotations

import json
import time

import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from lib.pacs import catalog as catalog_module
from lib.pacs.catalog import Catalog
from lib.pacs.client import make_client
from lib.pacs.errors import PacsError
from tests.pacs.making import another, make_seg, write_image


def numbers(entry: dict) -> None:
    entry["00620002"]["Value"][0]["00620004"] = {"vr": "US", "Value": [1, 2]}


def text(entry: dict) -> None:
    entry["00081115"] = {"vr": "LO", "Value": ["1.2.3"]}


def nonsense(entry: dict) -> None:
    entry["00620002"] = {"vr": "SQ", "Value": [7]}


def other_series(entry: dict) -> None:
    entry["0020000E"] = {"vr": "UI", "Value": ["../../1.2"]}


def no_uid(entry: dict) -> None:
    entry["00080018"] = {"vr": "UI", "Value": ["../x"]}


DAMAGES = [numbers, text, nonsense, other_series, no_uid]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segmentation_is_told_and_the_others_are_seen(fake, made, damage, caplog):
    folder, uid, seg = made
    damaged = another(seg, ContentDate="20270101")
    fake.store(folder, damaged, seg)
    fake.headers = lambda entry: (
        damage(entry) if entry["00080018"]["Value"] == [damaged.SOPInstanceUID] else None
    )
    catalog = Catalog(make_client(fake.url))
    for _ in range(2):
        assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID
    told = [record.message for record in caplog.records if damaged.SeriesInstanceUID in record.message]
    assert len(told) == 1


def test_a_date_that_cannot_be_is_none(fake, made):
    folder, uid, seg = made
    impossible = {"ContentDate": "00010101", "ContentTime": "01", "TimezoneOffsetFromUTC": "+0200"}
    fake.store(folder, another(seg, **impossible, SeriesDate="20250101", SeriesTime="120000"), seg)
    assert Catalog(make_client(fake.url)).ask().persons[uid].series == seg.SeriesInstanceUID
    fake.delete(seg.SeriesInstanceUID)
    assert Catalog(make_client(fake.url)).ask().persons[uid].header.created.startswith("20250101")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_does_not_condemn_the_others_of_its_series(fake, made, damage, caplog):
    folder, uid, seg = made
    sop = str(seg.SOPInstanceUID)
    twin = another(seg, SeriesInstanceUID=seg.SeriesInstanceUID, ContentDate="20270101")
    fake.store(folder, seg, twin)
    fake.headers = lambda entry: (
        damage(entry) if entry["00080018"]["Value"] == [twin.SOPInstanceUID] else None
    )
    catalog = Catalog(make_client(fake.url))
    for _ in range(2):
        assert catalog.ask().persons[uid].instance == sop
    told = [record.message for record in caplog.records if "An object of the SEG series" in record.message]
    assert len(told) == 1


def test_an_error_that_nobody_thought_of_leaves_out_one_segmentation(fake, made, monkeypatch, caplog):
    folder, uid, seg = made
    odd = another(seg, ContentDate="20270101")
    fake.store(folder, odd, seg)
    catalog = Catalog(make_client(fake.url))
    read = catalog._read

    def broken(series):
        if series.uid == odd.SeriesInstanceUID:
            raise RecursionError("too deep")
        return read(series)

    monkeypatch.setattr(catalog, "_read", broken)
    assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID
    assert "it cannot be read (RecursionError: too deep)" in caplog.text


def test_the_uids_are_those_that_the_pacs_lists(fake, made):
    folder, uid, seg = made
    fake.store(folder, seg)
    fake.headers = lambda entry: (
        entry.update({"0020000D": {"vr": "UI", "Value": ["../1"]}}),
        entry.pop("0020000E"),
    )
    found = Catalog(make_client(fake.url)).ask().persons[uid]
    assert (found.series, found.header.series) == (seg.SeriesInstanceUID, seg.SeriesInstanceUID)
    assert found.header.study == seg.StudyInstanceUID


def test_frames_are_not_looked_at(fake, made):
    folder, uid, seg = made
    fake.store(folder, seg)

    def damage(entry: dict) -> None:
        entry["52009229"] = entry["52009230"] = {"vr": "SQ", "Value": [7]}

    fake.headers = damage  # whoever looks stumbles; thousands of sound ones take many seconds
    assert uid in Catalog(make_client(fake.url)).ask().persons


# --- slow ones -----------------------------------------------------------------------------------------------------


def test_a_slow_segmentation_is_left_for_later_and_the_others_are_seen(fake, made, monkeypatch):
    folder, uid, seg = made
    slow = another(seg, ContentDate="20270101")
    fake.store(folder, slow, seg)
    fake.slow = {f"{slow.SeriesInstanceUID}/metadata": 1.0}
    catalog = Catalog(make_client(fake.url, header_seconds=0.3))
    assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID
    fake.queries()
    assert catalog.ask().persons[uid].series == seg.SeriesInstanceUID
    assert fake.queries() == ["GET /dicom-web/series"], "not at every poll"
    fake.slow = {}
    later = time.monotonic() + catalog_module.LATER_SECONDS[0]
    monkeypatch.setattr(catalog_module.time, "monotonic", lambda: later)
    assert catalog.ask().persons[uid].series == slow.SeriesInstanceUID


def test_what_was_read_before_the_pacs_was_lost_is_kept(fake, made):
    folder, uid, seg = made
    fake.store(folder, *(another(seg, ContentDate=f"202701{day:02}") for day in range(1, 7)))
    catalog = Catalog(make_client(fake.url))
    sent: list[dict] = []

    def stop_after_three(entry: dict) -> None:
        sent.append(entry)
        if len(sent) == 3:
            fake._server.socket.close()  # nobody is connected any more

    fake.headers = stop_after_three
    with pytest.raises(PacsError, match="cannot be reached") as failed:
        catalog.ask()
    assert failed.value.lost
    kept = catalog.contents()
    assert list(kept.images) == [uid]
    assert kept.persons[uid].header.created.startswith("20270103")
    fake.stop()
    fake.start()
    fake.headers = lambda _entry: None
    assert catalog.ask().persons[uid].header.created.startswith("20270106")
    assert sum("metadata" in path for path in fake.queries()) == 6, "none was asked for twice"


def test_a_pacs_that_is_stuck_is_not_asked_for_every_segmentation(fake, made):
    folder, uid, seg = made
    fake.store(folder, *(another(seg) for _ in range(9)))
    fake.slow = {"metadata": 1.0}
    catalog = Catalog(make_client(fake.url, header_seconds=0.1))
    with pytest.raises(PacsError, match="took too long over the headers"):
        catalog.ask()
    assert sum("metadata" in path for path in fake.queries()) == catalog_module.TOO_SLOW
    assert list(catalog.contents().images) == [uid]


def test_many_headers_are_read_bit_by_bit(fake, made):
    folder, uid, seg = made
    fake.store(folder, *(another(seg) for _ in range(8)))
    fake.slow = {"metadata": 0.1}
    catalog = Catalog(make_client(fake.url))
    left = [catalog.ask(0.25).waiting for _ in range(8)]
    assert 4 <= left[0] <= 6
    assert left[-1] == 0
    assert left == sorted(left, reverse=True)
    assert catalog.ask(0.25).persons[uid]


# --- those that cannot be used ---------------------------------------------------------------------------------------


def test_what_was_left_out_is_known_to_the_next_and_to_the_others(fake, made, tmp_path, caplog):
    folder, uid, seg = made
    older = another(seg, ContentDate="20250101")
    fake.store(folder, seg, older)
    file = tmp_path / "copies" / "unusable.json"
    server, trainer = (Catalog(make_client(fake.url), unusable=file) for _ in range(2))
    assert server.ask().persons[uid].series == seg.SeriesInstanceUID
    contents = trainer.ask()
    trainer.leave_out(contents.persons[uid], contents.images[uid], "it is empty.")
    caplog.clear()
    assert server.ask().persons[uid].series == older.SeriesInstanceUID
    assert f"{seg.SeriesInstanceUID} of the image {uid} is left out: it is empty." in caplog.text
    assert Catalog(make_client(fake.url), unusable=file).ask().persons[uid].series == older.SeriesInstanceUID
    fake.delete(seg.SeriesInstanceUID)
    contents = server.ask()
    server.leave_out(contents.persons[uid], contents.images[uid], "it is empty as well.")
    assert len(json.loads(file.read_text())["segs"]) == 1, "those that are gone are forgotten"
    for damaged in ("no JSON", "[]", '{"version": "0.0.1", "segs": [[["1", 1], ["2", 2], "old"]]}'):
        file.write_text(damaged)
        assert Catalog(make_client(fake.url), unusable=file).ask().persons[uid]


def test_a_label_is_left_out_for_the_image_that_it_was_tried_on(fake, made):
    folder, uid, seg = made
    fake.store(folder, seg)
    catalog = Catalog(make_client(fake.url))
    contents = catalog.ask()
    fake.store(another(pydicom.dcmread(folder / "0001.dcm"), SeriesInstanceUID=uid))
    catalog.ask()
    left_out = catalog.leave_out(contents.persons[uid], contents.images[uid], "it lies elsewhere.")
    assert uid in left_out.persons, "nobody tried it on the image as it is now"
    fake.delete(uid)
    catalog.ask()
    catalog.leave_out(contents.persons[uid], contents.images[uid], "it lies elsewhere.")
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    fake.store(*files[:7])
    assert uid in catalog.ask().persons


def test_labels_of_images_that_a_search_leaves_out_are_no_news(fake, made, tmp_path, caplog):
    folder, uid, seg = made
    write_image(tmp_path / "mr", 1, modality="MR")
    fake.store(folder, seg, tmp_path / "mr", make_seg(tmp_path / "mr", tmp_path / "seg.dcm", {1: "liver"}))
    assert list(Catalog(make_client(fake.url), {"Modality": "CT"}).ask().persons) == [uid]
    assert not [record for record in caplog.records if record.name == "lib.pacs.catalog"]
