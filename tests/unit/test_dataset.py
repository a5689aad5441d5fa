"""A dataset folder says what it is, and says in one sentence what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError


def write(path: Path, array: np.ndarray) -> None:
    """Save a small volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def make(folder: Path, *, names: tuple[str, ...] = ("a", "b"), **fields: Any) -> Path:
    """A dataset of two labelled CTs, values 1 and 2, and one without label map."""
    rng = np.random.default_rng(0)
    for name in (*names, "unlabelled"):
        write(folder / "images" / f"{name}.nii.gz", rng.normal(-300, 200, (6, 5, 4)).astype(np.float32))
    for name in names:
        labels = np.zeros((6, 5, 4), np.uint8)
        labels[1:3, 1:3, 1], labels[3:5, 1:3, 2] = 1, 2
        write(folder / "labels" / f"{name}.nii.gz", labels)
    description = {"labels": {"liver": 1, "spleen": 2}, "modality": "CT"} | fields
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_opening_lists_cases_and_what_their_values_mean(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path / "set", name="Abdomen"))
    assert (dataset.name, dataset.modality, dataset.complete) == ("Abdomen", "CT", False)
    assert dataset.labels == {"liver": 1, "spleen": 2}
    assert list(dataset.cases) == ["a", "b", "unlabelled"]
    assert list(dataset.labelled) == ["a", "b"]


def test_the_name_is_the_folders_where_none_is_given(tmp_path: Path) -> None:
    assert Dataset.open(make(tmp_path / "abdomen")).name == "abdomen"


def test_a_template_carries_names_and_completeness(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, complete=True))
    template = dataset.template(dataset.cases["a"])
    assert template.names == {"liver": 1, "spleen": 2}
    assert template.complete
    assert template.volume.name == "a"
    assert (template.labels == 2).sum() == 4


def test_image_and_label_map_may_be_of_different_kinds(tmp_path: Path) -> None:
    make(tmp_path, names=("a",))
    (tmp_path / "images" / "photo.jpg").parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((8, 6), 90, np.uint8)).save(tmp_path / "images" / "photo.jpg")
    labels = np.zeros((8, 6), np.uint8)
    labels[2, 4] = 2
    Image.fromarray(labels).save(tmp_path / "labels" / "photo.png")
    dataset = Dataset.open(tmp_path)
    template = dataset.template(dataset.cases["photo"])
    assert np.argwhere(template.labels == 2).tolist() == [[4, 2, 0]]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("images/.DS_Store", "images/notes.txt", "labels/.hidden.nii.gz", "labels/readme.md"):
        (tmp_path / name).write_text("x")
    assert list(Dataset.open(tmp_path).labelled) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("CT", "CT"),
        ("CT (HU)", "CT"),
        ("micro-CT", "CT"),
        ("MR cine SSFP short axis, end-diastolic frame", "MR"),
        ("in vivo MRI", "MR"),
        ("CR/DX frontal chest radiograph", "XR"),
        ("X-ray", "XR"),
        ("ultrasound", ""),
        ("direct electron imaging", ""),
        ("", ""),
    ],
)
def test_modality_is_read_from_free_text(tmp_path: Path, text: str, modality: str) -> None:
    assert Dataset.open(make(tmp_path, modality=text)).modality == modality


def test_a_ct_without_hounsfield_units_promises_none(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two", hounsfield=False)
    calibrated, grey = (Dataset.open(folder) for folder in (one, two))
    assert calibrated.volume(calibrated.cases["a"]).modality == "CT"
    volume = grey.volume(grey.cases["a"])
    assert volume.modality == ""
    assert any("Hounsfield" in note for note in volume.notes)


def test_an_undeclared_value_is_an_error_that_names_value_and_file(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, labels={"liver": 1}))
    with pytest.raises(FewshotError, match=r"labels/a\.nii\.gz.* value 2"):
        dataset.template(dataset.cases["a"])


def test_an_ignored_value_is_background(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, labels={"liver": 1}, ignore=[2, 9]))
    assert np.unique(dataset.template(dataset.cases["a"]).labels).tolist() == [0, 1]


def test_a_choice_of_labels_makes_the_others_background(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path), labels=["spleen"])
    template = dataset.template(dataset.cases["a"])
    assert template.names == {"spleen": 2}
    assert np.unique(template.labels).tolist() == [0, 2]


def test_a_declared_background_is_not_a_label(tmp_path: Path) -> None:
    assert Dataset.open(make(tmp_path, labels={"background": 0, "liver": 1, "x": 2})).labels == {
        "liver": 1,
        "x": 2,
    }


def test_a_case_without_label_map_cannot_be_a_template(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path))
    with pytest.raises(FewshotError, match=r"unlabelled\.nii\.gz has no label map"):
        dataset.template(dataset.cases["unlabelled"])


def test_choosing_keeps_the_order_told(tmp_path: Path) -> None:
    assert [case.name for case in Dataset.open(make(tmp_path)).choose(["b", "a", "b"])] == ["b", "a"]


@pytest.mark.parametrize(("name", "meant"), [("pt_013x", "pt_013"), ("PT_031", "pt_0"), ("zzz", "pt_013")])
def test_an_unknown_template_names_those_that_come_near(tmp_path: Path, name: str, meant: str) -> None:
    dataset = Dataset.open(make(tmp_path, names=("pt_013", "pt_031")))
    with pytest.raises(FewshotError, match=f'"{name}".*{meant}'):
        dataset.choose([name])


def test_an_unlabelled_case_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match=r'no labelled case in .* "unlabelled"'):
        Dataset.open(make(tmp_path)).choose(["unlabelled"])


def test_an_unknown_label_names_those_that_come_near(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match=r'"livr".*liver'):
        Dataset.open(make(tmp_path), labels=["livr"])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match=r"no dataset folder .*nowhere"):
        Dataset.open(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [False, True])
def test_no_images(tmp_path: Path, keep: bool) -> None:
    make(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    if not keep:
        (tmp_path / "images").rmdir()
    with pytest.raises(FewshotError, match="images holds no image"):
        Dataset.open(tmp_path)


def test_no_description_shows_how_one_looks(tmp_path: Path) -> None:
    (make(tmp_path) / "dataset.json").unlink()
    with pytest.raises(FewshotError, match=r'dataset\.json is missing.*\{"labels": \{"liver": 1'):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00", ""])
def test_a_broken_description(tmp_path: Path, text: str) -> None:
    (make(tmp_path) / "dataset.json").write_text(text)
    with pytest.raises(FewshotError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("labels", ["liver"], "names and values"),
        ("labels", {"liver": "1"}, "\"liver\".*'1'"),
        ("labels", {"1": "liver"}, '"1".*values 1 to 65535'),
        ("labels", {"liver": True}, "True"),
        ("labels", {"liver": 1.5}, "1.5"),
        ("labels", {"liver": 0}, '"liver".*value 0'),
        ("labels", {"liver": 70000}, "70000"),
        ("labels", {"liver": 1, "spleen": 1}, '"liver" and "spleen".* share the value 1'),
        ("labels", {" ": 1}, "has no name"),
        ("modality", {"0": "CT"}, "modality.*a text"),
        ("complete", "yes", "complete.*true or false"),
        ("hounsfield", 0, "hounsfield.*true or false"),
        ("ignore", 3, "ignore.*list"),
        ("ignore", ["x"], "ignore.*label values"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, field: str, value: object, words: str) -> None:
    with pytest.raises(FewshotError, match=words):
        Dataset.open(make(tmp_path, **{field: value}))


def test_a_label_map_without_image(tmp_path: Path) -> None:
    write(make(tmp_path) / "labels" / "c.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(FewshotError, match=r"labels/c\.nii\.gz has no image c"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_two_files_of_one_name(tmp_path: Path, part: str) -> None:
    write(make(tmp_path) / part / "a.nii", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(FewshotError, match=r"a\.nii and .*a\.nii\.gz are both called a"):
        Dataset.open(tmp_path)


def test_a_label_map_on_another_grid_is_named(tmp_path: Path) -> None:
    write(make(tmp_path) / "labels" / "a.nii.gz", np.ones((3, 5, 4), np.uint8))
    dataset = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=r"labels/a\.nii\.gz"):
        dataset.template(dataset.cases["a"])


def placed(array: np.ndarray, spacing: float, start: float) -> nib.Nifti1Image:
    """A volume whose first voxel begins at a corner somewhere in space."""
    affine = np.diag([spacing, spacing, 3.0, 1.0])
    affine[:3, 3] = start + spacing / 2, start + spacing / 2, 50
    return nib.Nifti1Image(array, affine)


def test_labels_on_another_grid_are_resampled_and_told(tmp_path: Path) -> None:
    make(tmp_path)
    labels = nib.load(tmp_path / "labels" / "a.nii.gz").get_fdata().astype(np.uint8)
    nib.save(
        placed(nib.load(tmp_path / "images" / "a.nii.gz").get_fdata(), 2.0, 30), tmp_path / "images/a.nii.gz"
    )
    nib.save(placed(labels.repeat(2, 0).repeat(2, 1), 1.0, 30), tmp_path / "labels" / "a.nii.gz")
    dataset = Dataset.open(tmp_path)
    template = dataset.template(dataset.cases["a"])
    np.testing.assert_array_equal(template.labels, labels)
    (note,) = (note for note in template.volume.notes if "resampled" in note)
    assert "12 x 10 x 4" in note
    read, notes = dataset.read_labels(dataset.cases["a"], template.volume)
    np.testing.assert_array_equal(read, labels)
    assert notes == (note,)


def test_an_empty_label_map_is_no_template_but_a_truth(tmp_path: Path) -> None:
    write(make(tmp_path) / "labels" / "a.nii.gz", np.zeros((6, 5, 4), np.uint8))
    dataset = Dataset.open(tmp_path)
    case = dataset.cases["a"]
    assert not dataset.label_map(case, dataset.volume(case)).any()
    with pytest.raises(
        FewshotError, match=r"labels/a\.nii\.gz holds none of the labels liver, spleen: choose"
    ):
        dataset.template(case)


def test_a_template_may_lack_a_label(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path, labels={"liver": 1, "spleen": 2, "kidney": 3}))
    template = dataset.template(dataset.cases["a"])
    assert template.drawn == ["liver", "spleen"]
    assert template.names == {"liver": 1, "spleen": 2, "kidney": 3}


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_file_that_breaks_off_is_named(tmp_path: Path, part: str) -> None:
    path = make(tmp_path) / part / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    dataset = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=rf"{part}/a\.nii\.gz cannot be read: it is damaged"):
        dataset.template(dataset.cases["a"])


def test_voxels_of_an_image_that_are_no_numbers_are_mended_and_told(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(-300, 200, (6, 5, 4)).astype(np.float32)
    array[0, 0, 0] = np.nan
    write(make(tmp_path) / "images" / "a.nii.gz", array)
    dataset = Dataset.open(tmp_path)
    template = dataset.template(dataset.cases["a"])
    assert template.volume.array[0, 0, 0] == np.nanmin(array)
    assert any("1 NaN" in note for note in template.volume.notes)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_labels_between_two_numbers_are_refused(tmp_path: Path, value: float) -> None:
    labels = np.ones((6, 5, 4), np.float32)
    labels[0] = value
    write(make(tmp_path) / "labels" / "a.nii.gz", labels)
    dataset = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=r"labels/a\.nii\.gz has values that are no integers"):
        dataset.template(dataset.cases["a"])
