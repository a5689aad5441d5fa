"""What is saved or told through this server: nothing drawn is lost, and nothing told breaks what others see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fastapi import HTTPException

from fewshot.errors import FewshotError
from fewshot.volumes import read_volume, write_labels
from tests.pacs.making import block, make_seg
from tests.unit.pacs.conftest import stored, submit

INFO = {"label_info": [{"name": "liver"}]}


@pytest.fixture
def label(tmp_path: Path, folder: Path) -> str:
    """A label file of the CT."""
    file = tmp_path / "drawn.nii.gz"
    write_labels(file, block(1), read_volume(folder))
    return str(file)


def refused(call, *arguments) -> int:
    with pytest.raises(HTTPException) as refusal:
        call(*arguments)
    return refusal.value.status_code


def kept(pacs) -> list[Path]:
    return sorted((Path(pacs._datastore_path) / "unsent").glob("*/label.nii.gz"))


@pytest.mark.parametrize("tag", ["..", ".", "", "a/b", "/x", ".hidden", "a\\b", "a\nb", "-x"])
def test_a_tag_that_is_no_name_overwrites_nothing(fake, open_pacs, folder, uid, label, tag):
    fake.store(folder)
    _, pacs = open_pacs()
    image = Path(pacs.get_image_uri(uid))
    before, files = image.read_bytes(), set(Path(pacs._datastore_path).rglob("*"))
    assert refused(pacs.save_label, uid, label, tag, dict(INFO)) == 422
    assert image.read_bytes() == before
    assert set(Path(pacs._datastore_path).rglob("*")) == files
    assert refused(pacs.remove_label, uid, tag) == 422
    assert refused(pacs.update_label_info, uid, tag, {}) == 422


def test_what_is_told_does_not_break_what_is_shown(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    submit(pacs, uid, block(1), ["liver"], tag="original")
    told = {"ts": "x", "name": "../y", "SeriesInstanceUID": "1.2.3", "status": "seen"}
    pacs.update_label_info(uid, "original", told)
    pacs.update_image_info(uid, {"path": "/etc/passwd", "PatientID": "somebody", "strategy": 1})
    fake.store(make_seg(folder, folder.parent / "model.dcm", {1: "liver"}, model="fewshot"))
    pacs.refresh()
    info = pacs.get_label_info(uid, "original")
    assert (info["status"], info["name"], "SeriesInstanceUID" in info) == ("seen", f"{uid}.nii.gz", False)
    image = pacs.get_image_info(uid)
    assert (image["PatientID"], image["strategy"]) == ("P0", 1)
    assert image["path"] == pacs.get_image_uri(uid)
    assert refused(pacs.update_label_info, uid, "original", ["x"]) == 422
    assert refused(pacs.update_image_info, uid, "x") == 422


def test_records_of_an_older_version_do_not_stop_the_polls(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    submit(pacs, uid, block(1), ["liver"], tag="original")
    file = Path(pacs._datastore_path) / "records.json"
    content = json.loads(file.read_text())
    content[uid]["labels"]["original"]["info"]["ts"] = "x"
    file.write_text(json.dumps(content))
    fake.store(make_seg(folder, folder.parent / "model.dcm", {1: "liver"}, model="fewshot"))
    pacs.refresh()
    assert pacs.get_label_info(uid, "original")["SeriesDescription"] == "fewshot"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), FewshotError), (RuntimeError("a bug"), RuntimeError)],
)
def test_a_label_is_kept_whatever_goes_wrong(
    fake, open_pacs, folder, uid, label, monkeypatch, caplog, error, raised
):
    fake.store(folder)
    _, pacs = open_pacs()

    def fail(*_):
        raise error

    monkeypatch.setattr(pacs._submitter, "submit", fail)
    with pytest.raises(raised) as failed:
        pacs.save_label(uid, label, "final", dict(INFO))
    (file,) = kept(pacs)
    assert f"is kept in {file}" in str(failed.value) + caplog.text
    assert file.read_bytes() == Path(label).read_bytes()


def test_a_label_that_cannot_be_kept_either_is_told(fake, open_pacs, folder, uid, label, monkeypatch):
    fake.store(folder)
    _, pacs = open_pacs()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pacs._submitter, "submit", fail)
    monkeypatch.setattr(pacs._submitter, "keep", fail)
    with pytest.raises(FewshotError, match="could not be kept here either .*save it in the viewer"):
        pacs.save_label(uid, label, "final", dict(INFO))


def test_a_label_that_was_refused_is_not_kept(fake, open_pacs, folder, uid, tmp_path):
    fake.store(folder)
    _, pacs = open_pacs()
    file = tmp_path / "empty.nii.gz"
    write_labels(file, np.zeros_like(block(1)), read_volume(folder))
    assert refused(pacs.save_label, uid, str(file), "final", dict(INFO)) == 422
    assert kept(pacs) == []


def test_a_label_that_was_stored_is_saved_whatever_comes_after(
    fake, open_pacs, folder, uid, label, monkeypatch, caplog
):
    fake.store(folder)
    _, pacs = open_pacs()

    def fail(**_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(pacs._watch, "ask", fail)
    assert pacs.save_label(uid, label, "final", dict(INFO)) == uid
    assert (len(stored(fake)), kept(pacs)) == (1, [])
    assert "is stored, and could not be listed yet" in caplog.text


def test_labels_that_wait_here_are_told_at_the_start(fake, open_pacs, folder, uid, label, caplog):
    fake.store(folder)
    _, pacs = open_pacs()
    fake.refuses = True
    for _ in range(2):
        with pytest.raises(FewshotError):
            pacs.save_label(uid, label, "final", dict(INFO))
    caplog.clear()
    _, pacs = open_pacs(ask=False)
    pacs.follow(5)
    told = [record.message for record in caplog.records if "did not take" in record.message]
    assert told == [
        f"2 labels that the PACS did not take lie in {Path(pacs._datastore_path) / 'unsent'}: "
        "submit them again, then remove them there."
    ]
