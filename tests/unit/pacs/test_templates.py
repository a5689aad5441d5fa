"""Templates from a PACS: names and voxels of one segmentation, whatever others store or delete meanwhile."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

import lib.templates
from fewshot.errors import FewshotError
from lib.models import FittedModels, PublishedModels
from lib.pacs.errors import PacsError
from lib.templates import voxel_names
from lib.trainers import AdapterTrainer
from tests.pacs.making import another, block, make_seg, write_image


@pytest.fixture(scope="module")
def swapped(folder) -> pydicom.Dataset:
    """A newer label of the same voxels: their names in the other order."""
    names = {1: "spleen", 2: "liver"}
    return make_seg(
        folder, folder.parent / "swapped.dcm", names, labels=block(1, 2), created="20270101120000.000000"
    )


@pytest.fixture
def second(fake, tmp_path) -> str:
    """Another CT in the PACS, with a label."""
    uid = write_image(tmp_path / "ct", 1)
    fake.store(tmp_path / "ct", make_seg(tmp_path / "ct", tmp_path / "seg.dcm", {1: "aorta"}))
    return uid


@pytest.fixture
def meanwhile(monkeypatch):
    """Has something happen once, while the label of an image is listed."""

    def arrange(image, happen) -> None:
        waiting = [happen]

        def names(info, what, *arguments):
            if waiting and image in what:
                waiting.pop()()
            return voxel_names(info, what, *arguments)

        monkeypatch.setattr(lib.templates, "voxel_names", names)

    return arrange


def drawn(project, template) -> dict[str, np.ndarray]:
    return {name: template.labels == value for name, value in project.drawn_labels([template]).items()}


def test_a_label_that_comes_while_they_are_listed_does_not_swap_names(
    fake, open_pacs, folder, uid, seg, swapped, meanwhile
):
    fake.store(folder, seg)
    project, pacs = open_pacs()
    meanwhile(uid, lambda: (fake.store(swapped), pacs.refresh()))
    submissions = project.submissions()
    (template,) = project.templates(submissions)
    found = drawn(project, template)
    np.testing.assert_array_equal(found["spleen"], block(1, 2) == 1)
    np.testing.assert_array_equal(found["liver"], block(1, 2) == 2)
    assert submissions != project.submissions(), "it was another label"


def test_a_label_that_goes_while_they_are_listed_is_told(
    fake, open_pacs, folder, uid, seg, second, meanwhile
):
    fake.store(folder, seg)
    project, pacs = open_pacs()
    meanwhile(uid, lambda: (fake.delete(seg.SeriesInstanceUID), pacs.refresh()))
    submissions = project.submissions()
    (template,) = found = project.templates(submissions)
    assert list(template.names) == ["aorta"]
    (reason,) = found.left_out.values()
    assert "was deleted or replaced" in reason


def test_a_newer_object_of_the_same_series_does_not_swap_names(fake, open_pacs, folder, uid, seg, swapped):
    fake.store(folder, seg)
    project, pacs = open_pacs()
    (submission,) = submissions = project.submissions()
    newer = another(swapped, SeriesInstanceUID=seg.SeriesInstanceUID)
    fake.store(newer)
    pacs.refresh()
    with pytest.raises(PacsError, match="was deleted or replaced"):
        submission.file()
    (template,) = project.templates(submissions)
    np.testing.assert_array_equal(drawn(project, template)["spleen"], block(1, 2) == 1)


def test_one_with_names_that_cannot_be_used_does_not_stop_others(
    fake, open_pacs, folder, uid, seg, second, monkeypatch, caplog
):
    fake.store(folder, seg)
    project, _ = open_pacs()

    def clean(name):
        if name == "liver":
            raise FewshotError("It cannot be called liver.")
        return name

    monkeypatch.setattr(lib.templates, "clean_name", clean)
    for _ in range(3):
        assert [entry.image_id for entry in project.submissions()] == [second]
    assert [record.message for record in caplog.records].count(
        f"The label of {uid} is left out: It cannot be called liver."
    ) == 1


def test_names_without_room_do_not_stop_others(fake, open_pacs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lib.labels.LARGEST", 2)
    uids = [write_image(tmp_path / f"{seed}", seed) for seed in range(2)]
    first, last = sorted(uids)
    for image, names in (
        (first, {1: "liver", 2: "spleen", 3: "kidney"}),
        (last, {1: "aorta"}),
    ):
        files = tmp_path / str(uids.index(image))
        fake.store(files, make_seg(files, tmp_path / f"{image}.dcm", names))
    project, _ = open_pacs()
    listings, listed = [], lib.project.list_submissions
    monkeypatch.setattr("lib.project.list_submissions", lambda *a, **k: listings.append(1) or listed(*a, **k))
    project.learn_names(first, last)
    assert project.labels.read() == {"aorta": 1}
    assert f"The label names of {first} are not learned: There would be 3 labels" in caplog.text
    assert len(listings) == 1


def test_a_passing_failure_is_no_part_of_a_model_that_is_kept(fake, open_pacs, folder, uid, seg, second):
    fake.store(folder, seg)
    project, _ = open_pacs()
    models = FittedModels("basic", project)
    fake.broken.add(second)
    assert set(models.load(device="cpu").labels) == {"liver", "spleen"}
    fake.broken.clear()
    model = models.load(device="cpu")
    assert set(model.labels) == {"liver", "spleen", "aorta"}
    assert models.load(device="cpu") is model


def test_a_passing_failure_is_no_part_of_a_slicing_that_is_kept(
    fake, open_pacs, folder, seg, second, monkeypatch
):
    fake.store(folder, seg)
    project, _ = open_pacs()
    asked: list[int] = []
    monkeypatch.setattr(project.engine, "slicing", lambda images, backbone: asked.append(len(images)))
    fake.broken.add(second)
    project.slicing.of(None)
    fake.broken.clear()
    for _ in range(2):
        project.slicing.of(None)
    assert asked == [1, 2]


def test_an_image_that_is_no_volume_is_left_out_of_a_model_that_is_kept(
    fake, open_pacs, folder, seg, second, tmp_path
):
    fake.store(folder, seg)
    files = next(held for (_, series), held in fake.files.items() if series == second)
    del files[sorted(files, key=lambda one: files[one].InstanceNumber)[3]]
    project, _ = open_pacs()
    found = project.templates(project.submissions())
    assert list(found.left_out) == [second]
    assert not found.passing
    models = FittedModels("basic", project)
    assert models.load(device="cpu") is models.load(device="cpu")


def test_a_training_names_the_templates_that_it_used(fake, open_pacs, folder, uid, seg, second):
    fake.store(folder, seg)
    project, pacs = open_pacs()
    models = PublishedModels("fewshot", project)
    trainer = AdapterTrainer(models, project, adapter="classification", description="test")
    fake.broken.add(second)
    told = trainer({"max_epochs": 1, "device": ["cpu"]}, pacs)
    assert told["templates"] == [uid]
    assert list(told["left_out"]) == [second]
    fake.broken.clear()
    told = trainer({"max_epochs": 1, "device": ["cpu"]}, pacs)
    assert (sorted(told["templates"]), "left_out" in told) == (sorted([uid, second]), False)


def test_an_unusable_label_gives_way_to_an_older_one_in_a_training(fake, open_pacs, folder, seg, caplog):
    newer = another(seg, ContentDate="20270101", PixelData=bytes(len(seg.PixelData)))
    fake.store(folder, seg, newer)
    project, _ = open_pacs()
    (submission,) = project.submissions()
    (template,) = found = project.templates([submission])
    np.testing.assert_array_equal(template.labels, block(1, 2))
    assert f"{newer.SeriesInstanceUID} of the image" in caplog.text
    assert found.left_out == {}


def test_a_template_that_is_gone_is_left_out_while_another_remains(
    fake, open_pacs, folder, uid, seg, tmp_path, caplog
):
    second = write_image(tmp_path / "ct", 1)
    fake.store(folder, seg, tmp_path / "ct", make_seg(tmp_path / "ct", tmp_path / "seg.dcm", {1: "aorta"}))
    project, _ = open_pacs()
    submissions = project.submissions()
    fake.delete(uid)
    (template,) = found = project.templates(submissions)
    assert template.names == {"aorta": project.labels.read()["aorta"]}
    assert list(found.left_out) == [uid]
    assert f"The template {uid} is left out: The PACS" in caplog.text
    assert len(project.template_images(submissions)) == 1
    fake.delete(second)
    project.datastore._copies.forget(second)
    with pytest.raises(PacsError, match="does not have the series"):
        project.templates(submissions)


def test_a_training_does_not_go_on_without_a_pacs(fake, open_pacs, folder, seg, tmp_path):
    write_image(tmp_path / "ct", 1)
    fake.store(folder, seg, tmp_path / "ct", make_seg(tmp_path / "ct", tmp_path / "seg.dcm", {1: "aorta"}))
    project, _ = open_pacs()
    submissions = project.submissions()
    project.templates(submissions[:1])
    fake.stop()
    with pytest.raises(PacsError, match="cannot be reached"):
        project.templates(submissions)
