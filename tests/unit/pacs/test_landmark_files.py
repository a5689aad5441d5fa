"""Landmarks that are kept here and not in the PACS: points beside labels, and what was found last."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from fewshot.landmarks.files import read_points
from fewshot.volumes import read_labels, read_volume, write_labels


def test_they_come_and_go_with_the_label(fake, folder, uid, open_pacs, tmp_path):
    fake.store(folder)
    project, pacs = open_pacs()
    pacs._stored = project.results.write_beside
    volume = read_volume(pacs.get_image_uri(uid))
    drawn = np.zeros(volume.shape, np.uint8)
    drawn[2, 1, 1] = 1
    sent = tmp_path / "sent.nii.gz"
    write_labels(sent, drawn, volume)
    pacs.save_label(uid, str(sent), "original", {"label_info": [{"name": "tip landmark"}]})
    label = pacs.get_label_uri(uid, "original")
    (beside,) = tmp_path.rglob("*.mrk.json")
    assert str(beside) == label.replace(".nii.gz", ".mrk.json")
    marks, _ = read_points(beside, volume)
    np.testing.assert_allclose(marks["tip landmark"].point, (volume.affine @ [2, 1, 1, 1])[:3], atol=1e-3)
    assert pacs.list_images() == [uid]
    pacs.remove_label(uid, "original")
    assert not list(tmp_path.rglob("*.mrk.json"))
    assert not list(tmp_path.rglob("*.landmarks.json"))


def test_a_label_of_an_image_that_cannot_be_had_is_kept_without_them(fake, folder, uid, open_pacs, tmp_path):
    fake.store(folder)
    project, pacs = open_pacs()
    pacs._stored = project.results.write_beside
    volume = read_volume(pacs.get_image_uri(uid))
    copy, sent = Path(pacs.get_image_uri(uid)), tmp_path / "sent.nii.gz"

    def save(x):
        drawn = np.zeros(volume.shape, np.uint8)
        drawn[x, 1, 1] = 1
        write_labels(sent, drawn, volume)
        pacs.save_label(uid, str(sent), "original", {"label_info": [{"name": "tip landmark"}]})
        return drawn

    save(2)
    assert list(tmp_path.rglob("*.mrk.json"))
    copy.unlink()
    fake.stop()
    drawn = save(3)
    assert not list(tmp_path.rglob("*.mrk.json")), "those of the label before would be wrong"
    np.testing.assert_array_equal(read_labels(pacs.get_label_uri(uid, "original"), volume), drawn)


def test_a_label_that_is_stored_waits_for_the_points_of_the_one_before(
    fake, folder, uid, open_pacs, tmp_path, monkeypatch
):
    fake.store(folder)
    project, pacs = open_pacs()
    volume = read_volume(pacs.get_image_uri(uid))
    writing, go_on = threading.Event(), threading.Event()

    def slow(*told):
        if not writing.is_set():
            writing.set()
            assert go_on.wait(20)
        project.results.write_beside(*told)

    monkeypatch.setattr(pacs, "_stored", slow)

    def save(name):
        drawn = np.zeros(volume.shape, np.uint8)
        drawn[2, 1, 1] = 1
        write_labels(tmp_path / f"{name}.nii.gz", drawn, volume)
        info = {"label_info": [{"name": f"{name} landmark"}]}
        pacs.save_label(uid, str(tmp_path / f"{name}.nii.gz"), "original", info)

    threads = [threading.Thread(target=save, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    assert writing.wait(20)
    threads[1].start()
    threads[1].join(0.5)  # time enough to overtake the first one, if it could
    go_on.set()
    for thread in threads:
        thread.join(20)
    (beside,) = tmp_path.rglob("*.mrk.json")
    assert set(read_points(beside)[0]) == {"second landmark"}


def test_what_was_found_goes_with_the_image(fake, folder, uid, open_pacs):
    fake.store(folder)
    project, pacs = open_pacs()
    pacs._vanished = project.results.forget_all_but
    kept = project.workspace.landmarks("landmarks") / f"{uid}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    pacs.refresh()
    assert kept.exists()
    fake.delete(uid)
    pacs.refresh()
    assert pacs.list_images() == []
    assert not kept.exists()


def test_what_was_found_in_an_image_that_went_meanwhile_goes_at_the_start(fake, folder, uid, open_pacs):
    fake.store(folder)
    seen = []
    open_pacs(vanished=seen.append)
    assert [list(images) for images in seen] == [[uid]]
