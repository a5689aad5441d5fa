"""The labelled data sets are what their descriptions say."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.evaluation.templates import sample_templates
from fewshot.volumes import SliceSpec, resolve_spec
from tests.data.conftest import DATA

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the labelled data sets are not at {DATA}; set FEWSHOT_DATA to their folder"
)

FEW = 3
SETS = {
    "ct_headneck_openkbp": ("CT", 14, 7),
    "mr_heart_lv_sunnybrook": ("MR", 18, 1),
    "mr_hippocampus_msd": ("MR", 25, 2),
    "mr_mouse_brain": ("MR", 13, 37),
    "xray_lungs_montgomery": ("XR", 40, 1),
}


@pytest.mark.parametrize("name", SETS)
def test_names_modality_and_cases(name: str) -> None:
    dataset = Dataset.open(DATA / name)
    assert (dataset.modality, len(dataset.labelled), len(dataset.labels)) == SETS[name]


@pytest.mark.parametrize("name", SETS)
def test_label_maps_hold_declared_values_on_the_grid_of_their_image(name: str) -> None:
    dataset = Dataset.open(DATA / name)
    for case in list(dataset.cases.values())[:FEW]:
        template = dataset.template(case)
        assert template.labels.shape == template.volume.shape
        assert set(np.unique(template.labels).tolist()) - {0} <= {*dataset.labels.values()}


@pytest.mark.parametrize("name", SETS)
def test_a_drawn_template_holds_every_label(name: str) -> None:
    dataset = Dataset.open(DATA / name)
    (case,) = sample_templates(dataset, 1, seed=0)
    present = set(np.unique(dataset.template(case).labels).tolist()) - {0}
    assert present == {*dataset.labels.values()}


def test_two_partly_labelled_bodies_complete_each_other() -> None:
    dataset = Dataset.open(DATA / "ct_body_totalseg")
    first, second = sample_templates(dataset, 2)
    held = [set(np.unique(dataset.template(case).labels).tolist()) - {0} for case in (first, second)]
    assert len(held[0]) >= len(held[1])
    assert held[0] | held[1] == {*dataset.labels.values()}


def test_micro_ct_in_grey_values_is_windowed_by_its_values() -> None:
    dataset = Dataset.open(DATA / "ct_mouse_skull_landmarks")
    assert dataset.modality == "CT"
    assert dataset.labelled == {}
    volume = dataset.volume(next(iter(dataset.cases.values())))
    assert resolve_spec(SliceSpec(size=224), [volume]).window == "percentile"
