"""The labelled data sets are what their descriptions say."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
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
    assert dataset.labels == {}
    assert len(dataset.landmarks) == 45
    volume = dataset.volume(next(iter(dataset.cases.values())))
    assert resolve_spec(SliceSpec(size=224), [volume]).window == "percentile"


# the same files in the layouts of others


def test_the_hippocampi_as_the_decathlon_lays_them_out(tmp_path: Path) -> None:
    ours = Dataset.open(DATA / "mr_hippocampus_msd")
    names = list(ours.labelled)[:4]
    for part, source in (("imagesTr", "images"), ("labelsTr", "labels")):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / f"{name}.nii.gz").symlink_to(
                DATA / "mr_hippocampus_msd" / source / f"{name}.nii.gz"
            )
    description = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "hippocampus_anterior", "2": "hippocampus_posterior"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": ["./imagesTs/hippocampus_002.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    theirs = Dataset.open(tmp_path)
    assert (theirs.labels, theirs.modality) == (ours.labels, "MR")
    assert (list(theirs.labelled), list(theirs.missing)) == (names, ["hippocampus_002"])
    for name in names:
        mine, other = (dataset.template(dataset.cases[name]) for dataset in (ours, theirs))
        assert mine.volume.digest == other.volume.digest
        np.testing.assert_array_equal(mine.labels, other.labels)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two bodies with a mask per organ, as TotalSegmentator's data come."""
    folder = tmp_path_factory.mktemp("total")
    bodies = Dataset.open(DATA / "ct_body_totalseg")
    for case in bodies.labelled.values():
        masks = folder / case.name / "segmentations"
        masks.mkdir(parents=True)
        (folder / case.name / "ct.nii.gz").symlink_to(case.image)
        drawn = nib.load(case.label)
        values = np.asarray(drawn.dataobj)
        for name, value in bodies.labels.items():
            if (values == value).any():
                nib.save(
                    nib.Nifti1Image((values == value).astype(np.uint8), drawn.affine),
                    masks / f"{name}.nii.gz",
                )
    return folder


def test_the_bodies_as_subjects_with_masks(subjects: Path) -> None:
    ours, theirs = Dataset.open(DATA / "ct_body_totalseg"), Dataset.open(subjects)
    assert list(theirs.labels) == sorted(ours.labels)
    assert (theirs.modality, theirs.complete) == ("CT", True)
    case = theirs.cases["body_a"]
    found = theirs.template(case)
    expected = ours.label_map(ours.cases["body_a"], ours.volume(ours.cases["body_a"]))
    for name, value in theirs.labels.items():
        np.testing.assert_array_equal(found.labels == value, expected == ours.labels[name])


def test_a_few_of_a_bodys_masks_are_read_alone(subjects: Path) -> None:
    theirs = Dataset.open(subjects, labels=["liver", "spleen"])
    case = theirs.cases["body_b"]
    labels = theirs.label_map(case, theirs.volume(case))
    assert set(np.unique(labels).tolist()) - {0} <= {*theirs.labels.values()}
    assert labels.any()


def test_a_map_of_the_body_at_half_resolution_comes_back(tmp_path: Path) -> None:
    ours = Dataset.open(DATA / "ct_body_totalseg", labels=["liver"])
    case = ours.cases["body_a"]
    drawn = nib.load(case.label)
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    (tmp_path / "images" / "body_a.nii.gz").symlink_to(case.image)
    coarse = (np.asarray(drawn.dataobj)[::2, ::2, ::2] == ours.labels["liver"]).astype(np.uint8)
    affine = drawn.affine @ np.diag([2, 2, 2, 1])
    nib.save(nib.Nifti1Image(coarse, affine), tmp_path / "labels" / "body_a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"liver": 1}, "modality": "CT"}))
    halved = Dataset.open(tmp_path)
    template = halved.template(halved.cases["body_a"])
    assert any("resampled" in note for note in template.volume.notes)
    truth = ours.label_map(case, ours.volume(case)) > 0
    dice = 2 * (truth & (template.labels > 0)).sum() / (truth.sum() + (template.labels > 0).sum())
    assert dice > 0.9
