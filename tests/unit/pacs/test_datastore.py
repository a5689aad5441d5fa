"""A PACS as datastore: labels go there under their names, files come when they are needed, nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fastapi import HTTPException

from fewshot.errors import FewshotError
from fewshot.volumes import read_labels, read_volume, write_labels
from lib.pacs.client import make_client
from lib.pacs.datastore import Pacs
from lib.pacs.errors import PacsError
from lib.pacs.seg_reading import read_header
from tests.pacs.fake import FakePacs
from tests.pacs.making import another, block, write_image
from tests.unit.pacs.conftest import DRAWN, stored, submit, wait_for

# --- submitting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(2,), (1, 3), (3, 1), (1, 2, 3)])
def test_any_subset_of_labels_keeps_its_names(fake, open_pacs, folder, uid, values):
    fake.store(folder)
    _, pacs = open_pacs()
    submit(pacs, uid, block(*values), ["liver", "spleen", "left kidney"], client_id="annotator-7")
    (seg,) = stored(fake)
    names = ["liver", "spleen", "left kidney"]
    header = read_header(seg)
    assert [part.name for part in header.segments] == [names[value - 1] for value in sorted(values)]
    assert (header.by_model, header.image_series, header.description) == (
        False,
        uid,
        "Submitted to MONAI Label",
    )
    assert "annotator-7" in str(seg.get("ContentCreatorName", ""))
    assert pacs.status() == {"total": 1, "completed": 1, "label_tags": {"final": 1}}
    back = read_labels(pacs.get_label_uri(uid, "final"), read_volume(pacs.get_image_uri(uid)))
    for number, part in enumerate(header.segments, start=1):
        np.testing.assert_array_equal(back == number, block(*values) == names.index(part.name) + 1)


def test_segments_that_are_no_labels_stay_out(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    submit(pacs, uid, block(1, 2), ["background", "spleen"])
    assert [part.name for part in read_header(stored(fake)[0]).segments] == ["spleen"]


def test_a_models_result_is_stored_as_one_and_is_no_template(fake, open_pacs, folder, uid, tmp_path):
    fake.store(folder)
    project, pacs = open_pacs()
    project.labels.add(["liver"])
    file = tmp_path / "result.nii.gz"
    write_labels(file, block(1), read_volume(pacs.get_image_uri(uid)))
    pacs.save_label(uid, str(file), "final", {"model": "fewshot", "params": {}})
    header = read_header(stored(fake)[0])
    assert (header.by_model, header.description) == (True, "fewshot")
    assert pacs.status() == {"total": 1, "completed": 0, "label_tags": {"original": 1}}
    assert project.submissions() == []
    assert Path(pacs.get_label_uri(uid, "original")).exists()


def test_a_label_that_cannot_be_one_is_not_sent(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    with pytest.raises(HTTPException) as refused:
        submit(pacs, uid, np.zeros((32, 32, 8), np.uint8), ["liver"])
    assert refused.value.status_code == 422
    assert "is empty" in refused.value.detail
    assert stored(fake) == []


@pytest.mark.parametrize("how", ["refused", "failed", "gone", "deleted"])
def test_a_label_that_the_pacs_does_not_take_is_kept(fake, open_pacs, folder, uid, how):
    fake.store(folder)
    _, pacs = open_pacs()
    file = Path(pacs._datastore_path) / "drawn.nii.gz"
    write_labels(file, block(1), read_volume(pacs.get_image_uri(uid)))
    fake.refuses = how == "refused"
    fake.status = 507 if how == "failed" else 0
    if how == "gone":
        fake.stop()
    if how == "deleted":
        fake.delete(uid)
        pacs.refresh()
    with pytest.raises(PacsError) as failed:
        pacs.save_label(uid, str(file), "final", {"label_info": [{"name": "liver"}]})
    sentence = str(failed.value)
    expected = {
        "refused": "0xa700",
        "failed": "507",
        "gone": "cannot be reached",
        "deleted": "There is no image",
    }
    assert expected[how] in sentence
    assert failed.value.status == (404 if how == "deleted" else 503)
    (kept,) = (Path(pacs._datastore_path) / "unsent").glob(f"{uid}-*/label.nii.gz")
    assert f"is kept in {kept}" in sentence
    assert json.loads((kept.parent / "params.json").read_text())["label_info"][0]["name"] == "liver"


def test_other_labels_stay_here_and_are_seen_by_every_process(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, server = open_pacs()
    _, batch = open_pacs()
    submit(batch, uid, block(1), ["liver"], tag="original", model="fewshot")
    batch.update_image_info(uid, {"strategy": {"random": {"ts": 5}}})
    server.refresh()
    assert stored(fake) == []
    assert server.status() == {"total": 1, "completed": 0, "label_tags": {"original": 1}}
    assert Path(server.get_label_uri(uid, "original")).exists()
    assert server.get_label_info(uid, "original")["model"] == "fewshot"
    assert server.get_image_info(uid)["strategy"] == {"random": {"ts": 5}}
    server.remove_label(uid, "original")
    assert server.get_label_uri(uid, "original") == ""


def test_what_is_in_the_pacs_is_not_changed_from_here(fake, open_pacs, folder, uid, seg):
    fake.store(folder, seg)
    _, pacs = open_pacs()
    for change in (
        lambda: pacs.remove_label(uid, "final"),
        lambda: pacs.remove_image(uid),
        lambda: pacs.add_image("x", "x.nii.gz", {}),
    ):
        with pytest.raises(HTTPException) as refused:
            change()
        assert refused.value.status_code == 409
    pacs.update_label_info(uid, "final", {"status": "approved"})
    assert pacs.get_label_info(uid, "final")["status"] == "approved"
    fake.store(another(seg, ContentDate="20270101"))
    pacs.refresh()
    assert "status" not in pacs.get_label_info(uid, "final"), "that was said of another label"


# --- what is listed ----------------------------------------------------------------------------------------------


def test_labels_in_the_pacs_are_listed_without_fetching_anything(fake, open_pacs, folder, uid, seg):
    fake.store(folder, seg, another(seg, ContentDate="20250101"))
    project, pacs = open_pacs()
    fake.queries()
    entry = pacs.json()["objects"][uid]["labels"]["final"]
    assert [part["name"] for part in entry["info"]["label_info"]] == ["liver", "spleen"]
    assert entry["info"]["SeriesInstanceUID"] == seg.SeriesInstanceUID
    assert entry["info"]["ts"] == 1767268800  # 2026-01-01 12:00 UTC
    assert pacs.status() == {"total": 1, "completed": 1, "label_tags": {"final": 1}}
    assert (pacs.get_labeled_images(), pacs.get_unlabeled_images()) == ([uid], [])
    (submission,) = project.submissions()
    assert submission.names == DRAWN
    assert project.submissions() == [submission], "nothing changed"
    assert fake.queries() == []
    (template,) = project.templates([submission])
    assert project.labels.read() == {"liver": 1, "spleen": 2}
    np.testing.assert_array_equal(template.labels, block(1, 2))
    assert template.volume.modality == "CT"


def test_the_modality_comes_with_the_copy(fake, open_pacs, tmp_path):
    mr = write_image(tmp_path / "mr", 1, modality="MR")
    fake.store(tmp_path / "mr")
    project, pacs = open_pacs()
    assert project.images.read(project.path(mr)).modality == "MR"
    assert read_volume(pacs.get_image_uri(mr)).modality == "CT", "by its values alone"


def test_new_labels_are_told(fake, open_pacs, folder, uid, seg):
    told: list[tuple[list[str], bool]] = []
    fake.store(folder, seg)
    _, pacs = open_pacs(on_change=lambda images, since: told.append((images, since)))
    wait_for(lambda: told == [([uid], False)])
    pacs.refresh()
    fake.store(another(seg, ContentDate="20250101"))
    pacs.refresh()
    fake.store(another(seg, ContentDate="20270101"))
    pacs.refresh()
    wait_for(lambda: told[1:] == [([uid], True)])
    submit(pacs, uid, block(1), ["liver"])
    time.sleep(0.2)
    assert len(told) == 2, "the server knows of its own"


def test_a_bad_new_label_does_not_count(fake, open_pacs, folder, uid, seg, caplog):
    fake.store(folder, seg)
    _, pacs = open_pacs()
    elsewhere = another(seg, ContentDate="20270101")
    for frame in elsewhere.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = [9000, 9000, 9000]
    fake.store(elsewhere)
    pacs.refresh()
    wait_for(lambda: pacs.get_label_info(uid, "final")["SeriesInstanceUID"] == seg.SeriesInstanceUID)
    assert pacs.status()["completed"] == 1
    told = [record for record in caplog.records if elsewhere.SeriesInstanceUID in record.message]
    assert len(told) == 1


# --- files -------------------------------------------------------------------------------------------------------


def test_an_image_is_fetched_once_whoever_asks(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    _, other = open_pacs()
    fake.queries()
    fake.seconds = 0.2
    paths: list[str] = []
    threads = [
        threading.Thread(target=lambda store=store: paths.append(store.get_image_uri(uid)))
        for store in (pacs, pacs, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 3
    assert len(fake.queries()) == 1
    copied, original = read_volume(paths[0]), read_volume(folder)
    np.testing.assert_array_equal(copied.array, original.array)
    np.testing.assert_allclose(copied.affine, original.affine, atol=1e-4)
    assert pacs.get_image_info(uid)["path"] == paths[0]


def test_an_image_that_changed_is_fetched_again(fake, open_pacs, folder, uid):
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    fake.store(*files[:5])
    _, pacs = open_pacs()
    assert read_volume(pacs.get_image_uri(uid)).shape[2] == 5
    fake.store(*files)
    pacs.refresh()
    assert read_volume(pacs.get_image_uri(uid)).shape[2] == 8


def test_an_image_that_is_deleted_is_told_and_its_copies_go(fake, open_pacs, folder, uid, seg):
    fake.store(folder, seg)
    _, pacs = open_pacs()
    Path(pacs.get_label_uri(uid, "final"))
    root = Path(pacs._datastore_path)
    fake.delete(uid)
    pacs.refresh()
    assert pacs.status() == {"total": 0, "completed": 0, "label_tags": {}}
    left = [path for path in root.rglob(f"*{uid}*") if ".locks" not in path.parts]
    assert left == []
    with pytest.raises(PacsError, match=f"There is no image {uid} in the PACS") as failed:
        pacs.get_image_uri(uid)
    assert failed.value.status == 404


def test_an_image_deleted_before_it_was_fetched_is_told(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    fake.delete(uid)
    with pytest.raises(PacsError, match=f"does not have the series {uid} of patient P0 .404.") as failed:
        pacs.get_image_uri(uid)
    assert failed.value.status == 404


def test_an_image_newer_than_the_last_look_is_found(fake, open_pacs, folder, uid):
    _, pacs = open_pacs()
    fake.store(folder)
    assert Path(pacs.get_image_uri(uid)).exists()


@pytest.mark.parametrize("how", ["missing", "duplicated", "mixed"])
def test_slices_that_are_no_volume_are_told_once(fake, open_pacs, folder, uid, how, caplog):
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    if how == "missing":
        del files[3]
    elif how == "duplicated":
        files.append(another(files[3], SeriesInstanceUID=uid))
    else:
        files[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    fake.store(*files)
    _, pacs = open_pacs()
    assert pacs.get_unlabeled_images() == [uid]
    expected = {
        "missing": "lacks slices",
        "duplicated": "several slices at one position",
        "mixed": "mixes slices",
    }
    for _ in range(2):
        with pytest.raises(FewshotError, match=f"The series {uid} of patient P0 .*{expected[how]}"):
            pacs.get_image_uri(uid)
    assert pacs.get_unlabeled_images() == []
    assert (pacs.status()["total"], pacs.list_images()) == (1, [uid])
    assert sum("the series" in record.message.lower() for record in caplog.records) == 1
    assert sum("/series/" in line for line in fake.queries()) == 1
    fake.files.clear()
    fake.store(folder)
    pacs.refresh()
    if how != "mixed":  # as many files as before look like no change
        assert pacs.get_unlabeled_images() == [uid]
        assert Path(pacs.get_image_uri(uid)).exists()


# --- a PACS that comes and goes ------------------------------------------------------------------------------------


def test_a_pacs_that_is_down_is_waited_for(fake, open_pacs, folder, uid, seg, caplog):
    fake.store(folder, seg)
    fake.stop()
    project, pacs = open_pacs(ask=False)
    pacs.follow(0.1)
    assert pacs.status() == {"total": 0, "completed": 0, "label_tags": {}}
    assert "cannot be reached" in pacs.problem
    with pytest.raises(PacsError, match="cannot be reached") as failed:
        pacs.get_image_uri(uid)
    assert failed.value.status == 503
    with pytest.raises(PacsError, match="cannot be reached"):
        pacs.get_unlabeled_images()  # for Next Sample, which would offer nothing without a word
    time.sleep(0.5)
    assert sum("Waiting for it" in record.message for record in caplog.records) == 1
    fake.start()
    wait_for(lambda: pacs.status()["completed"] == 1)
    assert pacs.problem is None
    assert len(project.templates(project.submissions())) == 1
    wait_for(lambda: sum("is back" in record.message for record in caplog.records) == 1)
    fake.stop()
    wait_for(lambda: pacs.problem)
    assert pacs.status()["completed"] == 1, "what is known stays"
    assert Path(pacs.get_image_uri(uid)).exists()
    fake.start()
    wait_for(lambda: pacs.problem is None)


def test_changes_are_noticed_within_the_interval(fake, open_pacs, folder, uid, seg):
    _, pacs = open_pacs(ask=False)
    pacs.follow(0.1)
    assert pacs.list_images() == []
    fake.store(folder)
    wait_for(lambda: pacs.get_unlabeled_images() == [uid])
    fake.store(seg)
    wait_for(lambda: pacs.get_unlabeled_images() == [] and pacs.status()["completed"] == 1)
    fake.delete(seg.SeriesInstanceUID)
    wait_for(lambda: pacs.get_unlabeled_images() == [uid] and pacs.status()["completed"] == 0)
    fake.delete(uid)
    wait_for(lambda: pacs.list_images() == [])


def test_a_slow_pacs_holds_up_nobody_who_only_looks(fake, open_pacs, folder, uid, seg):
    fake.store(folder, seg)
    project, pacs = open_pacs()
    fake.seconds = 1.0
    asking = threading.Thread(target=pacs.refresh)
    asking.start()
    time.sleep(0.1)
    start = time.monotonic()
    pacs.status(), pacs.json(), pacs.list_images(), pacs.get_unlabeled_images(), project.submissions()
    assert pacs.get_image_info(uid)["Modality"] == "CT"
    assert time.monotonic() - start < 0.5
    assert asking.is_alive()
    asking.join()


def test_two_pacs_do_not_share_copies(fake, open_pacs, folder, uid):
    fake.store(folder)
    _, pacs = open_pacs()
    with FakePacs() as second:
        second.store(folder)
        options = {"check": lambda *_: None, "names": lambda *_: {}}
        other = Pacs(make_client(second.url), cache=Path(pacs._datastore_path).parent, **options)
        other.refresh()
        assert pacs.get_image_uri(uid) != other.get_image_uri(uid)
