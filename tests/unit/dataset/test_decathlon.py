"""The Medical Segmentation Decathlon's layout, and MONAI's lists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.dataset import Dataset, study_readers
from fewshot.errors import FewshotError
from tests.unit.dataset.made import (
    SHAPE,
    describe,
    image,
    labels,
    msd,
    write,
)


@pytest.mark.parametrize("given", ["the folder", "the file"])
def test_a_decathlon_dataset(tmp_path: Path, given: str) -> None:
    dataset = Dataset.open(msd(tmp_path) if given == "the folder" else msd(tmp_path) / "dataset.json")
    assert (dataset.folder, dataset.name, dataset.modality) == (tmp_path, "Liver", "CT")
    assert dataset.labels == {"liver": 1, "cancer": 2}
    assert list(dataset.cases) == ["liver_0", "liver_1", "liver_9"]
    assert list(dataset.labelled) == ["liver_0", "liver_1"]
    template = dataset.template(dataset.cases["liver_1"])
    np.testing.assert_array_equal(template.labels, labels())
    np.testing.assert_allclose(template.volume.array, image(1))
    assert (template.volume.name, template.volume.modality, template.complete) == ("liver_1", "CT", True)


@pytest.mark.parametrize(
    "declared",
    [
        {"background": 0, "liver": 1, "cancer": 2},
        {"0": "Clear Label", "1": "liver", "2": "cancer"},
        {"liver": "1", "cancer": "2"},
    ],
)
def test_both_spellings_of_labels(tmp_path: Path, declared: dict) -> None:
    assert Dataset.open(msd(tmp_path, labels=declared)).labels == {"liver": 1, "cancer": 2}


def test_a_choice_of_labels(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path), labels=["cancer"])
    assert np.unique(dataset.template(dataset.cases["liver_0"]).labels).tolist() == [0, 2]


def test_our_own_keys_count_here_too(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path, labels={"1": "liver"}, ignore=[2], complete=False, hounsfield=False))
    template = dataset.template(dataset.cases["liver_0"])
    assert (template.complete, template.volume.modality) == (False, "")
    assert np.unique(template.labels).tolist() == [0, 1]


def test_lists_of_monai(tmp_path: Path) -> None:
    listed = [
        {"image": f"imagesTr/liver_{n}.nii.gz", "label": f"labelsTr/liver_{n}.nii.gz", "fold": n}
        for n in (0, 1)
    ]
    msd(tmp_path, training=listed[:1], validation=listed[1:], test=[{"image": "imagesTs/liver_9.nii.gz"}])
    dataset = Dataset.open(tmp_path)
    assert list(dataset.labelled) == ["liver_0", "liver_1"]
    assert dataset.cases["liver_9"].label is None


def test_a_list_may_have_any_name_and_the_slashes_of_windows(tmp_path: Path) -> None:
    msd(tmp_path)
    fields = json.loads((tmp_path / "dataset.json").read_text())
    fields["training"] = [
        {key: path.replace("/", "\\") for key, path in of.items()} for of in fields["training"]
    ]
    (tmp_path / "dataset.json").rename(tmp_path / "other.txt")
    describe(tmp_path, "dataset_0.json", **fields)
    assert list(Dataset.open(tmp_path / "dataset_0.json").labelled) == ["liver_0", "liver_1"]


def test_file_names_that_repeat_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for subject in ("a", "b"):
        write(tmp_path / subject / "t1.nii.gz", image())
        write(tmp_path / subject / "seg.nii.gz", labels())
    listed = [{"image": f"./{of}/t1.nii.gz", "label": f"./{of}/seg.nii.gz"} for of in "ab"]
    dataset = Dataset.open(describe(tmp_path, training=listed, labels={"x": 1, "y": 2}, modality="MRI"))
    assert list(dataset.cases) == ["a_t1", "b_t1"]
    assert dataset.template(dataset.cases["b_t1"]).volume.name == "b_t1"


def test_files_of_macos_are_not_cases(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path, test=["./imagesTs/._liver_0.nii.gz", "./imagesTs/liver_9.nii.gz"]))
    assert list(dataset.cases) == ["liver_0", "liver_1", "liver_9"]


def test_a_missing_file_fails_its_case_alone(tmp_path: Path) -> None:
    msd(tmp_path)
    (tmp_path / "imagesTr" / "liver_0.nii.gz").unlink()
    dataset = Dataset.open(tmp_path)
    assert list(dataset.cases) == ["liver_1", "liver_9"]
    for refused in (dataset.choose, dataset.only):
        with pytest.raises(
            FewshotError, match=r"image of .* liver_0 is missing \(.*imagesTr/liver_0\.nii\.gz\)"
        ):
            refused(["liver_0"])
    readers = study_readers(tmp_path)
    assert readers["liver_1"]().name == "liver_1"
    with pytest.raises(FewshotError, match="liver_0 is missing"):
        readers["liver_0"]()


def test_missing_labels_leave_the_image(tmp_path: Path) -> None:
    msd(tmp_path)
    (tmp_path / "labelsTr" / "liver_0.nii.gz").unlink()
    dataset = Dataset.open(tmp_path)
    assert list(dataset.labelled) == ["liver_1"]
    assert dataset.volume(dataset.cases["liver_0"]).shape == SHAPE
    for refused in (lambda: dataset.choose(["liver_0"]), lambda: dataset.template(dataset.cases["liver_0"])):
        with pytest.raises(
            FewshotError, match=r"labels of liver_0 are missing \(.*labelsTr/liver_0\.nii\.gz\)"
        ):
            refused()


def test_no_file_left_names_the_first(tmp_path: Path) -> None:
    msd(tmp_path)
    shutil.rmtree(tmp_path / "imagesTr")
    shutil.rmtree(tmp_path / "imagesTs")
    with pytest.raises(FewshotError, match=r"None of the 3 cases .*imagesTr/liver_0\.nii\.gz"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"1": "a", "2": "a"}}, 'Two values .* are called "a"'),
        ({"labels": {"1": "a", "b": 1}}, '"a" and "b" .* share the value 1'),
        ({"labels": {"a": 1.5}}, r"1\.5"),
        ({"labels": ["a"]}, r"\['a'\]"),
        ({"labels": {"all": [1, 2], "part": 2}}, '"all" .* region of the values'),
        ({"labels": {"0": "background"}}, "names no labels"),
        ({"labels": None}, "names no labels"),
        (
            {"training": [{"image": "a.nii.gz"}, {"label": "b.nii.gz"}]},
            r"training.*has the entry .*b\.nii\.gz",
        ),
        ({"training": [{"image": 3}]}, '"image" .* must be a path'),
        ({"training": [{"image": []}]}, "one image and one label"),
        ({"training": [{"image": "a.nii.gz", "label": ["b.nii.gz", "c.nii.gz"]}]}, "one label"),
        (
            {"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}, {"image": "./a.nii.gz"}]},
            "twice, with different labels",
        ),
        ({"complete": 1}, "complete.*true or false"),
        ({"channel": "FLAIR"}, r"'FLAIR': choose among 0 \(CT\)"),
        ({"channel": -1}, "-1: choose among"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FewshotError, match=words):
        Dataset.open(msd(tmp_path, **changes))


def test_an_unknown_number_is_named_with_its_file(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path, labels={"1": "liver"}))
    with pytest.raises(
        FewshotError, match=r"labelsTr/liver_0\.nii\.gz holds the value 2, unknown to .*dataset\.json"
    ):
        dataset.template(dataset.cases["liver_0"])
