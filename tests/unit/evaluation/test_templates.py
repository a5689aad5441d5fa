"""Which cases are drawn as templates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.template_slices import choose_slices, keep_slices
from fewshot.evaluation.templates import only_held, sample_templates, shuffled_cases
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

    def held(*names: str) -> tuple[list[dict[str, int]], list[str]]:
        templates = [dataset.template(case) for case in dataset.choose(names)]
        kept, untested = only_held(templates, dataset.labels)
        return [template.names for template in kept], untested

    assert held(WITHOUT_BAR) == ([{"disc": 1}], ["bar"])
    assert held(WITHOUT_BAR, "ann") == ([LABELS, LABELS], [])


def shown(*rows: str) -> np.ndarray:
    """Which slices show a label: one text per label, x where it is shown."""
    return np.array([[mark == "x" for mark in row] for row in rows]).T


@pytest.mark.parametrize(
    ("held", "count", "chosen"),
    [
        (shown("..xxxxxxxxx.."), 3, [3, 6, 9]),
        (shown("..xxxxxxxxx.."), 1, [6]),
        (shown("..xxx.."), 3, [2, 3, 4]),
        (shown("..xxx.."), 7, [2, 3, 4]),
        (shown("xxxxxx..............xxxxxx"), 4, [1, 4, 21, 24]),
        # the second label is shown in one slice alone: it takes the place of its neighbour
        (shown("xxxxxxxxx", "x........"), 3, [0, 4, 7]),
        (shown("xxxxxxxxx", "........x", "x........"), 3, [0, 4, 8]),
        # three labels that never share a slice, and two slices: as many as can be
        (shown("xx....", "..xx..", "....xx"), 2, [1, 4]),
    ],
)
def test_slices_are_spread_evenly_and_show_every_label(
    held: np.ndarray, count: int, chosen: list[int]
) -> None:
    assert choose_slices(held, count) == chosen


@given(held=arrays(bool, (12, 4)), count=st.integers(1, 6))
def test_as_many_slices_as_asked_and_all_labels_where_there_are_enough(held: np.ndarray, count: int) -> None:
    if not held.any():
        return
    chosen = choose_slices(held, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, held.any(axis=1).sum())
    if count >= 4:
        assert (held[chosen].any(axis=0) == held.any(axis=0)).all()


def test_the_kept_slices_are_whole_and_the_others_unknown(folder: Path) -> None:
    dataset = Dataset.open(folder)
    template = replace(dataset.template(dataset.cases["ann"]), complete=True)
    kept, indices = keep_slices(template, 2, axis=1)
    assert len(indices) == 2
    assert not kept.complete
    assert (kept.labels[:, indices] == template.labels[:, indices]).all()
    assert np.flatnonzero(kept.labels.any(axis=(0, 2))).tolist() == indices
    assert kept.names == template.names
