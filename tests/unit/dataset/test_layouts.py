"""Which layout a folder has, and what is said of one that has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.dataset import Dataset, study_readers
from fewshot.errors import FewshotError
from tests.unit.dataset.made import (
    image,
    msd,
    nnunet,
    totalsegmentator,
    write,
)


def test_a_folder_of_no_layout_says_what_each_would_need(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", image())
    with pytest.raises(FewshotError) as caught:
        Dataset.open(tmp_path)
    sentence = str(caught.value)
    assert all(
        part in sentence
        for part in ("images/, labels/", "training", "imagesTr", "ct.nii.gz", "segmentations/")
    )
    assert "\n" not in sentence


def test_a_file_that_is_no_description(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", image())
    with pytest.raises(FewshotError, match=r"a\.nii\.gz is no dataset: give its folder"):
        Dataset.open(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("make", [msd, nnunet, totalsegmentator])
def test_studies_are_read_as_their_dataset_says(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path)
    readers = study_readers(folder)
    assert list(readers) == list(Dataset.open(folder).cases)
    assert {read().modality for read in readers.values()} == {"MR" if make is nnunet else "CT"}


def test_a_plain_folder_of_volumes_needs_no_layout(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", image())
    assert list(study_readers(tmp_path)) == ["a"]
