"""Images that were read lately are not read again, unless their file changed."""

import os
import threading
import time

import pytest

from fewshot.errors import FewshotError
from lib import images as module
from lib.images import Images
from lib.studies import StudiesDescription
from tests.unit.lib.conftest import write_study


@pytest.fixture
def reads(monkeypatch):
    """Paths in the order of reading."""
    done, read = [], module.read_image

    def read_and_tell(path, description):
        done.append(path.name)
        return read(path, description)

    monkeypatch.setattr(module, "read_image", read_and_tell)
    return done


@pytest.fixture
def images():
    return Images(StudiesDescription())


def test_an_image_is_read_once(images, studies, reads):
    assert images.read(studies / "a.nii.gz") is images.read(studies / "a.nii.gz")
    assert reads == ["a.nii.gz"]


def test_a_replaced_file_is_read_again_and_the_old_one_forgotten(images, studies, reads):
    before = images.read(studies / "a.nii.gz")
    write_study(studies, "new", 5)
    os.replace(studies / "new.nii.gz", studies / "a.nii.gz")
    after = images.read(studies / "a.nii.gz")
    assert (before.array != after.array).any()
    assert len(images._read) == 1


def test_the_least_recently_used_goes(images, studies, reads, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    write_study(studies, "c", 3)
    for name in "abacb":
        images.read(studies / f"{name}.nii.gz")
    assert reads == [f"{name}.nii.gz" for name in "abcb"]


def test_memory_is_limited_but_the_newest_is_kept(images, studies, reads, monkeypatch):
    monkeypatch.setattr(module, "BYTES", 1)
    for name in "aab":
        images.read(studies / f"{name}.nii.gz")
    assert reads == ["a.nii.gz", "b.nii.gz"]
    assert len(images._read) == 1


def test_work_in_the_background_pushes_nothing_out(images, studies, reads):
    images.read(studies / "a.nii.gz")
    images.read(studies / "a.nii.gz", keep=False)
    images.read(studies / "b.nii.gz", keep=False)
    assert reads == ["a.nii.gz", "b.nii.gz"]
    assert len(images._read) == 1


def test_a_failure_is_not_kept(images, studies, reads):
    good = (studies / "a.nii.gz").read_bytes()
    file = studies / "a.nii.gz"
    file.write_bytes(b"no image")
    with pytest.raises(FewshotError, match="cannot be read"):
        images.read(file)
    file.write_bytes(good)
    assert images.read(file).name == "a"


def test_two_at_once_read_once(images, studies, reads, monkeypatch):
    read, found = module.read_image, []

    def slow(path, description):
        time.sleep(0.3)
        return read(path, description)

    monkeypatch.setattr(module, "read_image", slow)
    threads = [
        threading.Thread(target=lambda: found.append(images.read(studies / "a.nii.gz"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len({id(image) for image in found}) == 1
