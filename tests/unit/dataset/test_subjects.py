"""TotalSegmentator's layout: a folder per subject, a mask per structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.store import file_stamp
from tests.unit.dataset.made import (
    AFFINE,
    SHAPE,
    image,
    labels,
    totalsegmentator,
    write,
)


def test_subjects_with_a_mask_per_structure(tmp_path: Path) -> None:
    dataset = Dataset.open(totalsegmentator(tmp_path / "total"))
    assert (dataset.name, dataset.modality, dataset.complete) == ("total", "CT", True)
    assert dataset.labels == {"aorta": 1, "liver": 2, "spleen": 3}
    assert (list(dataset.cases), list(dataset.labelled)) == (["s0000", "s0001", "s0002"], ["s0000", "s0001"])
    template = dataset.template(dataset.cases["s0000"])
    # each mask overlaps the next by one plane, which goes to the later name
    assert np.bincount(template.labels.ravel()).tolist()[1:] == [6, 6, 12]
    assert template.labels[:, 2, 1].tolist() == [0, 1, 2, 3, 3, 0]
    assert (template.volume.name, template.volume.modality) == ("s0000", "CT")
    assert any(note.startswith("12 voxels lie in several masks") for note in template.volume.notes)


def test_a_structure_without_mask_is_absent(tmp_path: Path) -> None:
    dataset = Dataset.open(totalsegmentator(tmp_path))
    assert np.unique(dataset.template(dataset.cases["s0001"]).labels).tolist() == [0, 1, 2]


def test_only_the_masks_asked_for_are_read(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    for path in tmp_path.glob("*/segmentations/[!a]*"):
        path.write_bytes(b"broken")
    dataset = Dataset.open(tmp_path, labels=["aorta"])
    assert np.bincount(dataset.template(dataset.cases["s0000"]).labels.ravel()).tolist()[1:] == [12]
    everything = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=r"segmentations/liver\.nii\.gz cannot be read"):
        everything.template(everything.cases["s0000"])


def test_opening_reads_no_file(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    for path in tmp_path.glob("*/**/*.nii.gz"):
        path.write_bytes(b"broken")
    assert Dataset.open(tmp_path).labels == {"aorta": 1, "liver": 2, "spleen": 3}


def test_the_stamp_of_a_case_follows_its_masks(tmp_path: Path) -> None:
    case = Dataset.open(totalsegmentator(tmp_path)).cases["s0000"]
    before = file_stamp(case.image, case.label)
    write(tmp_path / "s0000" / "segmentations" / "liver.nii.gz", np.ones(SHAPE, np.uint8))
    assert file_stamp(case.image, case.label) != before


def test_modality_is_each_subjects_own(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    (tmp_path / "s0001" / "ct.nii.gz").rename(tmp_path / "s0001" / "mri.nii.gz")
    dataset = Dataset.open(tmp_path)
    assert dataset.modality == ""
    assert [dataset.volume(case).modality for case in dataset.cases.values()] == ["CT", "MR", "CT"]


def test_masks_on_another_grid_are_resampled(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    for name in ("aorta", "liver"):
        mask = np.zeros(SHAPE, np.uint8)
        mask[1:3, 1:4, 1:3] = 1
        coarser = AFFINE @ np.diag([1, 1, 1, 1.0])
        coarser[2, 3] += 0.6
        write(tmp_path / "s0001" / "segmentations" / f"{name}.nii.gz", mask, coarser)
    dataset = Dataset.open(tmp_path)
    template = dataset.template(dataset.cases["s0001"])
    assert [
        note for note in template.volume.notes if "aorta.nii.gz were resampled" in note and "1 other" in note
    ]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda s: write(s / "segmentations" / "liver.nii.gz", labels()),
            r"liver\.nii\.gz holds the values 1, 2",
        ),
        (
            lambda s: write(s / "segmentations" / "liver.nii.gz", image()),
            r"liver\.nii\.gz has values that are no int",
        ),
        (
            lambda s: write(s / "segmentations" / "liver.nii.gz", np.ones((3, 3, 3), np.uint8), np.eye(4)),
            r"liver\.nii\.gz lies on another grid",
        ),
        (
            lambda s: [
                write(path, np.zeros(SHAPE, np.uint8)) for path in (s / "segmentations").glob("[!.]*")
            ],
            "segmentations holds none of the labels aorta, liver, spleen",
        ),
    ],
    ids=["several values", "an image", "another grid", "empty"],
)
def test_masks_that_are_none(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(totalsegmentator(tmp_path) / "s0000")
    dataset = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=words):
        dataset.template(dataset.cases["s0000"])


def test_a_subject_without_image_is_missing(tmp_path: Path) -> None:
    (totalsegmentator(tmp_path) / "s0001" / "ct.nii.gz").unlink()
    dataset = Dataset.open(tmp_path)
    assert list(dataset.cases) == ["s0000", "s0002"]
    with pytest.raises(FewshotError, match="s0001 has segmentations but no image"):
        dataset.choose(["s0001"])


def test_two_images_of_a_subject(tmp_path: Path) -> None:
    write(totalsegmentator(tmp_path) / "s0001" / "mri.nii.gz", image())
    with pytest.raises(FewshotError, match=r"s0001 has two images, ct\.nii\.gz and mri\.nii\.gz"):
        Dataset.open(tmp_path)
