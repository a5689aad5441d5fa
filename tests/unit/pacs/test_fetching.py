"""Copies of what is in a PACS: whole or not there, and gone when the PACS has it no more."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from lib.pacs.catalog import Catalog
from lib.pacs.client import make_client
from lib.pacs.errors import PacsError
from lib.pacs.fetching import Copies, UnreadableSegError
from tests.pacs.fake import FakePacs
from tests.pacs.making import another, make_seg, write_image


@pytest.fixture
def copies(fake: FakePacs, tmp_path: Path) -> Copies:
    return Copies(make_client(fake.url), tmp_path / "copies")


def left(copies: Copies) -> set[str]:
    """Names of what is kept, without locks."""
    return {path.name for path in copies.folder.iterdir()} - {".locks"}


def test_a_part_of_an_image_is_no_image(fake, made, copies):
    folder, uid, _ = made
    fake.store(folder)
    series = Catalog(make_client(fake.url)).ask().images[uid]
    fake.sends = 5
    with pytest.raises(PacsError, match=f"sent 5 of 8 files of the series {uid} of patient P0: try again"):
        copies.image(series)
    assert left(copies) == set()
    assert copies.problem(series) is None
    fake.sends = 0
    assert copies.image(series).exists()
    assert left(copies) == {uid, f"{uid}.nii.gz", f"{uid}.nii.gz.json"}


def test_what_a_killed_process_left_goes_with_the_next(fake, made, copies):
    folder, uid, _ = made
    fake.store(folder)
    part = copies.folder / f".fetching-{uid}" / uid
    part.mkdir(parents=True)
    (part / "9.dcm").write_bytes(b"a part")
    assert copies.image(Catalog(make_client(fake.url)).ask().images[uid]).exists()
    assert left(copies) == {uid, f"{uid}.nii.gz", f"{uid}.nii.gz.json"}
    assert len(list(copies.dicom(Catalog(make_client(fake.url)).ask().images[uid]).iterdir())) == 8


def test_what_was_deleted_while_nobody_asked_goes_at_the_first_answer(fake, made, copies, tmp_path):
    folder, uid, seg = made
    gone = write_image(tmp_path / "ct", 1)
    gone_seg = make_seg(tmp_path / "ct", tmp_path / "seg.dcm", {1: "aorta"})
    fake.store(folder, seg, tmp_path / "ct", gone_seg)
    contents = Catalog(make_client(fake.url)).ask()
    for image, label in contents.persons.items():
        copies.label(label, contents.images[image])
    (copies.folder / ".fetching-1.2.3").mkdir()
    for kept in (f"labels/original/{uid}.nii.gz", f"unsent/{gone}-x/label.nii.gz", "records.json"):
        (copies.folder / kept).parent.mkdir(parents=True, exist_ok=True)
        (copies.folder / kept).write_text("kept")
    fake.delete(gone)
    fake.delete(gone_seg.SeriesInstanceUID)
    copies.forget_all_but(Catalog(make_client(fake.url)).ask())
    assert left(copies) == {
        *(uid, f"{uid}.nii.gz", f"{uid}.nii.gz.json", "segs"),
        *("labels", "unsent", "records.json"),
    }
    (label,) = (copies.folder / "segs").iterdir()
    assert label.name.startswith(f"{seg.SeriesInstanceUID}-")
    assert (copies.folder / "unsent" / f"{gone}-x" / "label.nii.gz").exists()


@pytest.mark.parametrize("error", [OverflowError, IndexError, AttributeError])
def test_a_label_whose_voxels_are_damaged_is_told(fake, made, copies, monkeypatch, error):
    folder, uid, seg = made
    fake.store(folder, seg)
    contents = Catalog(make_client(fake.url)).ask()

    def damaged(*_: object) -> None:
        raise error("odd")

    monkeypatch.setattr("lib.pacs.fetching.read_seg", damaged)
    with pytest.raises(UnreadableSegError, match=f"{seg.SeriesInstanceUID} is damaged .odd.: store it again"):
        copies.label(contents.persons[uid], contents.images[uid])


def test_a_datastore_begins_with_nothing_that_is_gone(fake, made, tmp_path):
    from lib.pacs.datastore import Pacs

    folder, uid, _ = made
    fake.store(folder)
    options = {"cache": tmp_path / "cache", "check": lambda *_: None, "names": lambda *_: {}}
    pacs = Pacs(make_client(fake.url), **options)
    pacs.refresh()
    file = Path(pacs.get_image_uri(uid))
    fake.delete(uid)
    again = Pacs(make_client(fake.url), **options)
    fake.status = 500
    with pytest.raises(PacsError):
        again.refresh()
    assert file.exists(), "it has not said what it has"
    fake.status = 0
    again.refresh()
    assert not file.exists()
    assert not file.parent.joinpath(uid).exists()


def test_a_label_that_turned_out_to_be_empty_does_not_count_after_a_start_either(fake, made, tmp_path):
    from lib.pacs.datastore import Pacs

    folder, uid, seg = made
    fake.store(folder, another(seg, PixelData=bytes(len(seg.PixelData))))
    options = {"cache": tmp_path / "cache", "check": lambda *_: None, "names": lambda *_: {}}
    server, trainer, later = (Pacs(make_client(fake.url), **options) for _ in range(3))
    server.refresh()
    trainer.refresh()
    assert server.get_unlabeled_images() == []
    with pytest.raises(UnreadableSegError, match="is empty"):
        trainer.get_label_uri(uid, "final")
    server.refresh()
    later.refresh()
    assert server.get_unlabeled_images() == later.get_unlabeled_images() == [uid]
