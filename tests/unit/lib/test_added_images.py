"""Images that are sent to the studies folder: nothing else is overwritten, and labels stay with their images."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from tests.unit.conftest import blobs
from tests.unit.lib.test_studies_folder import state

LABELS = blobs(0)[1]


@pytest.fixture
def project(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    return project


@pytest.mark.parametrize(
    ("image", "file"),
    [("../x", "x.nii.gz"), ("..", "x.nii.gz"), (".x", "x.nii.gz"), ("datastore_v2", "x.json")],
)
def test_an_image_that_cannot_be_called_so(project, tmp_path, studies, image, file):
    files = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    sent = tmp_path / file
    sent.write_bytes((studies / "a.nii.gz").read_bytes())
    with pytest.raises(HTTPException) as refusal:
        project.datastore.add_image(image, str(sent), {})
    assert refusal.value.status_code == 422
    sent.unlink()
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == files


def test_a_new_image_is_added(project, tmp_path, studies):
    sent = shutil.copy(studies / "b.nii.gz", tmp_path / "new two.nii.gz")
    assert project.datastore.add_image("", str(sent), {"user": "u"}) == "new two"
    assert project.datastore.get_image_info("new two")["user"] == "u"
    assert Path(project.datastore.get_image_uri("new two")).read_bytes() == Path(sent).read_bytes()


def test_an_image_that_is_sent_again_keeps_its_label(project, tmp_path, studies):
    names = project.datastore.get_label_info("a", "final")["label_info"]
    labelled = Path(project.datastore.get_label_uri("a", "final"))
    sent = shutil.copy(studies / "b.nii.gz", tmp_path / "sent.nii.gz")  # of the same grid
    assert project.datastore.add_image("a", str(sent), {}) == "a"
    assert (studies / "a.nii.gz").read_bytes() == (studies / "b.nii.gz").read_bytes()
    assert project.datastore.get_label_info("a", "final")["label_info"] == names
    assert labelled.exists()
    assert [entry.image_id for entry in project.submissions()] == ["a"]


def test_an_image_of_another_grid_does_not_replace_a_labelled_one(project, tmp_path, studies):
    image = nib.load(studies / "a.nii.gz")
    sent = tmp_path / "sent.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[5:, :, 2:], np.diag([3.0, 3, 3, 1])), sent)
    before, bytes_before = state(project), (studies / "a.nii.gz").read_bytes()
    with pytest.raises(HTTPException) as refusal:
        project.datastore.add_image("a", str(sent), {})
    assert refusal.value.status_code == 409
    assert str(tmp_path) not in refusal.value.detail
    assert (state(project), (studies / "a.nii.gz").read_bytes()) == (before, bytes_before)
    assert project.datastore.add_image("b", str(sent), {}) == "b", "nobody has labelled that one"
