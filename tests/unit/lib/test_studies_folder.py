"""The studies folder: nothing that was saved is lost, whatever comes after."""

import json
import os
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.datastore import StudiesFolder
from tests.unit.conftest import blobs
from tests.unit.lib.conftest import write_label, write_study

LABELS = blobs(0)[1]


def state(project):
    """Everything that a refused submission must leave as it was."""
    folder = Path(project.datastore._datastore.label_path("final"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files, Path(project.datastore._datastore_config_path).read_text(), project.labels.read()


def refused(project, image, file, info) -> str:
    before = state(project)
    with pytest.raises(HTTPException) as refusal:
        project.datastore.save_label(image, str(file), "final", info)
    assert state(project) == before
    assert 400 <= refusal.value.status_code < 500
    assert "\n" not in refusal.value.detail
    return str(refusal.value.detail)


INFO = {"label_info": [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]}


@pytest.fixture
def project(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    return project


def test_a_label_of_another_shape(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS[1:], studies / "a.nii.gz")
    detail = refused(project, "a", file, INFO)
    assert detail.startswith("The label of a was not saved. The label file lies on another grid")
    assert str(tmp_path) not in detail


def test_a_label_in_another_place(project, tmp_path, studies):
    affine = nib.load(studies / "a.nii.gz").affine
    affine[0, 3] += 30
    nib.save(nib.Nifti1Image(LABELS.astype(np.uint8), affine), tmp_path / "x.nii.gz")
    assert "another grid" in refused(project, "a", tmp_path / "x.nii.gz", INFO)


def test_an_empty_label(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS * 0, studies / "a.nii.gz")
    assert "is empty" in refused(project, "a", file, INFO)


def test_a_label_with_nothing_but_background(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS == 1, studies / "a.nii.gz")
    assert "is empty" in refused(project, "a", file, {"label_info": [{"name": "background"}]})


def test_a_value_without_a_name(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    detail = refused(project, "a", file, {"label_info": INFO["label_info"][:1]})
    assert "holds the value 2, which has no name: its names are 1 bright." in detail


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b\x08\x00broken"])
def test_an_unreadable_file(project, tmp_path, content):
    (tmp_path / "x.nii.gz").write_bytes(content)
    assert "cannot be read" in refused(project, "a", tmp_path / "x.nii.gz", INFO)


def test_a_cut_off_file(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    file.write_bytes(file.read_bytes()[:-40])
    assert "cannot be read" in refused(project, "a", file, INFO)


def test_an_image_instead_of_a_label(project, studies):
    assert "no integers" in refused(project, "a", studies / "a.nii.gz", INFO)


@pytest.mark.parametrize("label_info", ["bright", [1], [{"idx": 1}], [{"name": ""}, {"name": "dark"}]])
def test_names_that_are_none(project, tmp_path, studies, label_info):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    assert refused(project, "a", file, {"label_info": label_info})


def test_more_labels_than_8_bits(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    many = {"label_info": [{"name": f"label {n}"} for n in range(254)]}
    assert "255" in refused(project, "a", file, many)


@pytest.mark.parametrize(
    ("image", "tag"),
    [("zz", "final"), ("zz", "original"), *(("a", tag) for tag in ("../../x", "", ".", "..", ".x", "x\\y"))],
)
def test_unknown_images_and_tags(project, tmp_path, studies, image, tag):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    before = state(project)
    with pytest.raises(HTTPException):
        project.datastore.save_label(image, str(file), tag, INFO)
    assert state(project) == before


def test_names_are_required_somewhere(open_project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    detail = refused(open_project(), "a", file, {})
    assert "does not name its structures" in detail


def test_a_new_label_replaces_the_old_one_in_another_format_too(project, tmp_path, studies):
    import SimpleITK as sitk

    folder = Path(project.datastore._datastore.label_path("final"))
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(file)), str(tmp_path / "x.nrrd"))
    project.datastore.save_label("a", str(tmp_path / "x.nrrd"), "final", INFO)
    assert os.listdir(folder) == ["a.nrrd"]
    assert project.datastore.get_label_uri("a", "final") == str(folder / "a.nrrd")


def test_what_another_process_wrote_is_kept(project, tmp_path, studies, open_project):
    other = open_project().datastore  # opened before the next label is saved, like a batch inference
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "b.nii.gz")
    project.datastore.save_label("b", str(file), "final", dict(INFO))
    other.save_label(
        "a", str(write_label(tmp_path / "y.nii.gz", LABELS, studies / "a.nii.gz")), "original", {}
    )
    other.update_image_info("a", {"seen": True})
    for store in (project.datastore, other):
        store.refresh()
        assert store.get_label_info("b", "final")["label_info"] == INFO["label_info"]
        assert set(store.get_labels_by_image_id("a")) == {"final", "original"}
        assert store.get_image_info("a")["seen"]


def test_images_never_vanish_while_the_folder_is_read_again(project):
    store, missing, stop = project.datastore, [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            if not store.get_image_uri("a"):
                missing.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        store.refresh()
    stop.set()
    thread.join()
    assert not missing


def test_a_training_does_not_write(project, studies):
    config = Path(project.datastore._datastore_config_path)
    write_study(studies, "c", 3)
    before = config.read_text()
    reader = StudiesFolder(
        str(studies), extensions=["*.nii.gz"], check=project.check_label, auto_reload=False, read_only=True
    )
    assert config.read_text() == before
    assert [entry["name"] for entry in reader.get_label_info("a", "final")["label_info"]] == [
        "bright",
        "dark",
    ]


def test_files_that_cannot_be_read_are_no_studies(studies):
    (studies / "slide.svs").touch()
    (studies / "notes.xml").touch()
    store = StudiesFolder(
        str(studies),
        extensions=["*.nii.gz", "*.svs", "*.xml"],
        check=None,
        auto_reload=False,
        read_only=False,
    )
    assert sorted(store.list_images()) == ["a", "b"]


def test_a_removed_study_is_forgotten(project, studies):
    (studies / "a.nii.gz").unlink()
    project.datastore.refresh()
    assert project.datastore.list_images() == ["b"]
    assert project.submissions() == []


def test_the_record_is_json_at_all_times(project):
    path = Path(project.datastore._datastore_config_path)
    assert json.loads(path.read_text())["objects"]["a"]["labels"]["final"]["info"]["label_info"]


def test_a_picture_takes_the_label_that_slicer_sends_for_it(open_project, studies, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(studies / "x.png")
    project = open_project()
    project.datastore = StudiesFolder(
        str(studies), extensions=["*.png"], check=project.check_label, auto_reload=False, read_only=False
    )
    drawn = np.zeros((40, 30, 1), np.uint8)
    drawn[10:20, 5:15] = 1
    nib.save(nib.Nifti1Image(drawn, np.diag([-1, -1, 1, 1])), tmp_path / "x.nii.gz")
    project.datastore.save_label("x", str(tmp_path / "x.nii.gz"), "final", {"label_info": [{"name": "spot"}]})
    (template,) = project.templates(project.submissions())
    np.testing.assert_array_equal(template.labels, drawn)


def test_a_label_without_names_does_not_stop_other_submissions(open_project, submit, studies):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True)
    write_label(folder / "b.nii.gz", LABELS, studies / "b.nii.gz")
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    assert project.labels.read() == {"bright": 1, "dark": 2}


def test_a_damaged_record_ends_the_start_with_a_sentence(project, studies, open_project):
    (studies / "datastore_v2.json").write_text('{"objects"')
    with pytest.raises(FewshotError, match=r"datastore_v2\.json cannot be read"):
        open_project()
    project.datastore.refresh()
    assert project.datastore.get_label_info("a", "final")["label_info"]


def test_a_tag_that_is_no_name_leaves_the_image_alone(project, tmp_path, studies):
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "a.nii.gz")
    before = (studies / "a.nii.gz").read_bytes()
    store = project.datastore
    store._datastore.objects["a"].labels[".."] = store._datastore.objects["a"].labels[
        "final"
    ]  # as once saved
    for call in (
        lambda: store.save_label("a", str(file), "..", dict(INFO)),
        lambda: store.get_label_uri("a", ".."),
        lambda: store.remove_label("a", ".."),
    ):
        with pytest.raises(HTTPException) as refusal:
            call()
        assert refusal.value.status_code == 422
        assert (studies / "a.nii.gz").read_bytes() == before


def test_what_only_the_server_says_of_a_label_stays(project):
    store = project.datastore
    before = dict(store.get_label_info("a", "final"))
    store.update_label_info("a", "final", {"ts": "x", "name": "../b", "status": "seen"})
    assert store.get_label_info("a", "final") == {**before, "status": "seen"}
    with pytest.raises(HTTPException):
        store.update_label_info("a", "final", ["x"])
