"""The labelled data sets read, fit their labels and survive the way to slices and back."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewshot.volumes import (
    SliceSpec,
    SliceStack,
    modality_of,
    read_labels,
    read_volume,
    resolve_spec,
    write_labels,
)
from tests.data.conftest import DATA

FEW = 3
"""Cases per data set: enough to see each kind of file, few enough for every run."""

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the labelled data sets are not at {DATA}; set FEWSHOT_DATA to their folder"
)
pytestmark = needs_data

PLANES = {
    "ct_headneck_openkbp": "axial",
    "mr_heart_lv_sunnybrook": "axial",
    "mr_hippocampus_msd": "axial",
    "mr_mouse_brain": "axial",
    "xray_lungs_montgomery": "axial",
}
"""Plane that each set was acquired in, or axial where it is isotropic."""


def cases(name: str) -> list[tuple[Path, Path]]:
    images = sorted((DATA / name / "images").iterdir())[:FEW]
    return [(image, DATA / name / "labels" / image.name) for image in images]


@pytest.mark.parametrize("name", [*PLANES, "ct_body_totalseg"])
def test_images_and_labels_lie_on_one_grid_and_come_back(name: str) -> None:
    described = json.loads((DATA / name / "dataset.json").read_text())
    for image, label in cases(name):
        volume = read_volume(image, modality=described["modality"])
        labels = read_labels(label, volume)
        assert volume.modality == modality_of(described["modality"]) != ""
        assert set(np.unique(labels)) - {0} <= set(described["labels"].values())
        assert labels.any()
        stack = SliceStack(volume, SliceSpec(), patch=14)
        np.testing.assert_array_equal(stack.restore(stack.slices(labels)), labels)
        back = stack.from_pixels(stack.to_pixels(labels))
        assert (back != labels).mean() < 0.002
        # the mouse brains are masked, and a few labels go on where the image is zero
        labelled_air = stack.slices(volume.array)[stack.air & stack.slices(labels).any(axis=(1, 2))]
        assert not np.ptp(labelled_air, axis=(1, 2)).any(), (
            "a labelled slice that shows something counts as air"
        )


@pytest.mark.parametrize(("name", "plane"), PLANES.items())
def test_one_spec_fits_the_cases_of_a_set(name: str, plane: str) -> None:
    volumes = [read_volume(image) for image, _ in cases(name)]
    spec = resolve_spec(SliceSpec(), volumes)
    assert spec.plane == plane
    assert spec.window == ("ct-soft" if name.startswith("ct") else "percentile")
    assert (spec.pixel_mm is None) == name.startswith("xray")
    longest = [max(SliceStack(volume, spec, patch=14).content) for volume in volumes]
    assert 0.7 * 448 < np.median(longest) < 1.4 * 448


def test_dicom_and_nifti_of_one_scan_are_one_volume() -> None:
    dicom = read_volume(DATA / "dicom" / "totalseg_body_b")
    nifti = read_volume(DATA / "ct_body_totalseg" / "images" / "body_b.nii.gz")
    spec = SliceSpec("axial", size=224)
    one, other = SliceStack(dicom, spec, patch=14), SliceStack(nifti, spec, patch=14)
    assert dicom.modality == nifti.modality == "CT"
    np.testing.assert_array_equal(one.images, other.images)
    corner = np.array([[3, 50, 60]])
    np.testing.assert_allclose(one.world(corner), other.world(corner), atol=0.01)


def test_labels_of_the_nifti_fit_the_dicom_and_the_other_way_round(tmp_path: Path) -> None:
    dicom = read_volume(DATA / "dicom" / "totalseg_body_b")
    nifti = read_volume(DATA / "ct_body_totalseg" / "images" / "body_b.nii.gz")
    path = DATA / "ct_body_totalseg" / "labels" / "body_b.nii.gz"
    write_labels(tmp_path / "seg.nrrd", read_labels(path, dicom), dicom)
    np.testing.assert_array_equal(
        read_labels(tmp_path / "seg.nrrd", nifti), np.asarray(nib.load(path).dataobj)
    )


@pytest.mark.parametrize(
    ("name", "modality", "plane", "shape"),
    [
        ("brain_t1_fl2d_sag_siemens", "MR", "sagittal", (35, 256, 256)),
        ("dcmqi_ct3slice_with_seg", "CT", "axial", (3, 512, 512)),
        ("slicer_cthead_64", "CT", "axial", (93, 64, 64)),
    ],
)
def test_dicom_series_are_read_in_their_plane(
    name: str, modality: str, plane: str, shape: tuple[int, int, int]
) -> None:
    volume = read_volume(DATA / "dicom" / name)
    stack = SliceStack(volume, SliceSpec(), patch=14)
    assert (volume.modality, stack.plane) == (modality, plane)
    assert (len(stack), *stack.native) == shape


def test_everything_unlabelled_is_readable() -> None:
    for path in sorted((DATA / "unlabelled").glob("*.nii.gz"))[::8]:
        volume = read_volume(path)
        assert volume.modality == ("CT" if path.name.startswith("ct_") else ""), path.name
        assert SliceStack(volume, SliceSpec(size=64), patch=8).images.max() > 0.5
