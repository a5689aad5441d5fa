"""Which cases are drawn as templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.templates import read_templates, sample_templates, shuffled_cases
from tests.unit.evaluation.shapes import LABELS, NAMES, WITHOUT_BAR, write_case


@pytest.mark.parametrize("seed", range(8))
def test_a_drawn_template_holds_all_labels_where_one_does(folder: Path, seed: int) -> None:
    (case,) = sample_templates(Dataset.open(folder), 1, seed=seed)
    assert case.name != WITHOUT_BAR


def test_the_seed_decides_and_more_shots_add_to_fewer(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert sample_templates(dataset, 3, seed=5) == sample_templates(dataset, 3, seed=5)
    assert sample_templates(dataset, 3, seed=5)[:2] == sample_templates(dataset, 2, seed=5)
    assert len({sample_templates(dataset, 1, seed=seed)[0].name for seed in range(20)}) > 1


def test_the_last_shot_is_filled_with_what_there_is(folder: Path) -> None:
    assert {case.name for case in sample_templates(Dataset.open(folder), 5)} == set(NAMES)


def test_where_no_case_holds_all_labels_the_second_adds_what_the_first_lacks(folder: Path) -> None:
    for name in NAMES:
        write_case(folder, name, 3, bar=False)
    write_case(folder, "bar", 3, disc=False)
    for seed in range(6):
        assert "bar" in {case.name for case in sample_templates(Dataset.open(folder), 2, seed=seed)}


@pytest.mark.parametrize("shots", [0, 6])
def test_too_many_or_no_shots(folder: Path, shots: int) -> None:
    with pytest.raises(FewshotError, match="5 labelled cases"):
        sample_templates(Dataset.open(folder), shots)


def test_the_order_does_not_depend_on_what_lies_in_the_folder_unlabelled(folder: Path) -> None:
    before = shuffled_cases(Dataset.open(folder), 1)
    (folder / "images" / "aaa.nii.gz").write_bytes((folder / "images" / "ann.nii.gz").read_bytes())
    assert shuffled_cases(Dataset.open(folder), 1) == before


def test_labels_that_no_template_holds_are_told(folder: Path) -> None:
    dataset = Dataset.open(folder)
    templates, untested = read_templates(dataset, dataset.choose([WITHOUT_BAR]))
    assert templates[0].names == {"disc": 1}
    assert untested == ["bar"]
    templates, untested = read_templates(dataset, dataset.choose([WITHOUT_BAR, "ann"]))
    assert [template.names for template in templates] == [LABELS, LABELS]
    assert untested == []
