"""Files that a dataset lists and does not have, and files that needed a decision: results say so."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from fewshot.evaluation import print_summary
from fewshot.evaluation.table import notices
from tests.unit.evaluation.fakes import Copy
from tests.unit.evaluation.shapes import LABELS, NAMES, write_case


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Decathlon's layout: five labelled cases, two for testing; files of four of the seven are missing."""
    folder = tmp_path / "shapes"
    for seed, name in enumerate(NAMES):
        write_case(folder, name, seed)
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    (folder / "imagesTs").mkdir()
    (folder / "imagesTr" / "dan.nii.gz").rename(folder / "imagesTs" / "fay.nii.gz")
    (folder / "labelsTr" / "eve.nii.gz").unlink()
    listed = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in NAMES]
    fields = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background"} | {str(value): name for name, value in LABELS.items()},
        "training": listed,
        "test": ["./imagesTs/fay.nii.gz", "./imagesTs/gus.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def coarse(folder: Path) -> Callable[[str], None]:
    """Makes the label map of a case one of half the resolution in the plane."""

    def halve(name: str) -> None:
        path = folder / "labelsTr" / f"{name}.nii.gz"
        drawn = nib.load(path)
        affine = drawn.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(np.asarray(drawn.dataobj)[::2, ::2], affine), path)

    return halve


def test_labelled_cases_without_a_file_have_failed_and_test_images_have_not(
    run: Any, made_up: type[Copy]
) -> None:
    results = run(adapters=[], baselines=["copy"])
    assert list(results["failed"]) == ["dan", "eve"]
    assert "image" in results["failed"]["dan"]
    assert "labels of eve are missing" in results["failed"]["eve"]
    assert {row["case"] for row in results["rows"]} == {"bob", "cid"}


def test_only_the_chosen_cases_can_fail(run: Any, made_up: type[Copy]) -> None:
    results = run(adapters=[], baselines=["copy"], cases=["ann", "bob", "eve"])
    assert list(results["failed"]) == ["eve"]


def test_resampled_labels_are_told(
    run_with_report: Any,
    made_up: type[Copy],
    coarse: Callable[[str], None],
    folder: Path,
    tmp_path: Path,
) -> None:
    for name in ("ann", "cid"):  # the template, and a case that is predicted
        coarse(name)
    results = run_with_report(adapters=[], baselines=["copy"])
    assert list(results["notes"]) == ["ann", "cid"]
    for name, (note,) in results["notes"].items():
        assert f"labels of {name}.nii.gz were resampled" in note
    shown = io.StringIO()
    print_summary(results, Console(file=shown, width=100))
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (" ".join(shown.getvalue().split()), page):
        assert "cid: labels of cid.nii.gz were resampled" in text

    again = run_with_report(adapters=[], baselines=["copy"])
    assert again["notes"] == results["notes"], "they stay when nothing is left to do"
    write_case(folder, "cid", 2)
    (folder / "labels" / "cid.nii.gz").rename(folder / "labelsTr" / "cid.nii.gz")
    assert list(run_with_report(adapters=[], baselines=["copy"])["notes"]) == ["ann"]


def test_a_note_on_many_cases_is_shown_once() -> None:
    notes = {f"case_{number}": ["it is turned"] for number in range(9)}
    notes["case_0"] += [f"it has quirk {number}" for number in range(4)]
    assert notices({"notes": notes}) == [
        "case_0, case_1, case_2 and 6 others: it is turned.",
        "case_0: it has quirk 0.",
        "case_0: it has quirk 1.",
        "2 more notes on cases are in results.json.",
    ]
