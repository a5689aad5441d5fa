"""Labels on another grid come to the image by their place in space, or are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_labels, read_volume
from fewshot.volumes.labels import place_labels

SHAPE = (20, 24, 12)
AFFINE = np.array([[-1.0, 0, 0, 15], [0, 1, 0, -40], [0, 0, 2, 100], [0, 0, 0, 1]])
LIKE = Volume(np.zeros(SHAPE, np.float32), AFFINE, name="case")
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[4:12, 6:14, 2:8], LABELS[14:18, 4:10, 4:8] = 1, 2


def save(path: Path, labels: np.ndarray, affine: np.ndarray | None) -> Path:
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def moved(steps: list[float], affine: np.ndarray = AFFINE) -> np.ndarray:
    """An affine whose first voxel lies at these indices of another grid."""
    affine = affine.copy()
    affine[:3, 3] = (affine @ [*steps, 1])[:3]
    return affine


def test_the_same_grid_in_another_order_is_exact_and_needs_no_word(tmp_path: Path) -> None:
    flipped = nib.Nifti1Image(LABELS, AFFINE).as_reoriented([[1, 1], [0, -1], [2, 1]])
    nib.save(flipped, tmp_path / "a.nii.gz")
    labels, notes = place_labels(tmp_path / "a.nii.gz", LIKE)
    np.testing.assert_array_equal(labels, LABELS)
    assert notes == ()


def test_finer_labels_are_resampled_and_told(tmp_path: Path) -> None:
    fine = LABELS.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    path = save(tmp_path / "a.nii.gz", fine, moved([-0.25] * 3) @ np.diag([0.5, 0.5, 0.5, 1]))
    labels, (note,) = place_labels(path, LIKE)
    np.testing.assert_array_equal(labels, LABELS)
    assert all(part in note for part in ("a.nii.gz", "40 x 48 x 24", "20 x 24 x 12", "resampled")), note


def test_labels_of_a_part_of_the_image_land_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", LABELS[3:19, 3:15, 1:9], moved([3, 3, 1]))
    labels, notes = place_labels(path, LIKE)
    np.testing.assert_array_equal(labels, LABELS)
    assert len(notes) == 1


def test_an_image_that_was_cut_out_takes_its_part_of_the_labels(tmp_path: Path) -> None:
    part = Volume(np.zeros((9, 24, 12), np.float32), moved([3, 0, 0]), name="part")
    labels, _ = place_labels(save(tmp_path / "a.nii.gz", LABELS, AFFINE), part, ignored=[2])
    np.testing.assert_array_equal(labels, np.where(LABELS == 1, 1, 0)[3:12])


AT_ORIGIN = np.diag([-1.0, 1, 2, 1])


@pytest.mark.parametrize(
    ("labels", "affine", "image", "reason"),
    [
        (LABELS, moved([15, 0, 0]), AFFINE, "share 25% of the smaller"),
        (LABELS, moved([500, 0, 0]), AFFINE, "share 0% of the smaller"),
        (LABELS, np.eye(4), AFFINE, "the label file does not say where"),
        (LABELS[:10], None, AFFINE, "the label file does not say where"),
        (LABELS, AFFINE, np.eye(4), "the image does not say where"),
        (LABELS.transpose(1, 0, 2), AFFINE, AFFINE, "axes are in another order"),
        (LABELS[:10], AT_ORIGIN, AT_ORIGIN, "begins at 0, 0, 0"),
    ],
    ids=[
        "beside",
        "far away",
        "identity",
        "no affine",
        "identity of the image",
        "transposed without saying so",
        "no position",
    ],
)
def test_grids_that_do_not_explain_each_other(
    tmp_path: Path, labels: np.ndarray, affine: np.ndarray | None, image: np.ndarray, reason: str
) -> None:
    path = save(tmp_path / "a.nii.gz", labels, affine)
    with pytest.raises(FewshotError) as caught:
        place_labels(path, Volume(LIKE.array, image, name="case"))
    sentence = str(caught.value)
    assert all(part in sentence for part in (str(path), "case", reason, "mm", ";")), sentence


def test_at_the_origin_two_grids_of_one_extent_belong_together(tmp_path: Path) -> None:
    like = Volume(LIKE.array, np.diag([1.0, 1, 2, 1]), name="case")
    labels, notes = place_labels(save(tmp_path / "a.nii", LABELS[::2, ::2], np.diag([2.0, 2, 2, 1])), like)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert notes


@pytest.mark.parametrize("ignored", [(), (3,)])
def test_a_label_that_would_vanish_is_named(tmp_path: Path, ignored: tuple[int, ...]) -> None:
    fine = LABELS.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    fine[0, 0, 0] = 3  # a third of a voxel of the image, and not at its middle
    path = save(tmp_path / "a.nii.gz", fine, moved([-1 / 3] * 3) @ np.diag([1 / 3, 1 / 3, 1 / 3, 1]))
    if ignored:
        np.testing.assert_array_equal(place_labels(path, LIKE, ignored=ignored)[0], LABELS)
        return
    with pytest.raises(FewshotError, match=r"a\.nii\.gz lies on another grid .*nothing of the value 3 "):
        place_labels(path, LIKE)


def test_an_image_without_place_takes_labels_of_its_shape_alone(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "x.nii.gz", np.ones(SHAPE, np.float32), None))
    labels, notes = place_labels(save(tmp_path / "a.nii.gz", LABELS, AFFINE), image)
    np.testing.assert_array_equal(labels, LABELS)
    assert "voxel by voxel" in notes[0]
    with pytest.raises(FewshotError, match="the image does not say where"):
        place_labels(save(tmp_path / "b.nii.gz", LABELS[1:], AFFINE), image)


def test_a_picture_takes_labels_of_its_shape_alone(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.ones((8, 5), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(FewshotError, match="the label file does not say where"):
        place_labels(tmp_path / "a.png", read_volume(tmp_path / "x.png"))


def test_what_is_read_strictly_stays_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", LABELS[3:19, 3:15, 1:9], moved([3, 3, 1]))
    with pytest.raises(FewshotError, match=r"lies on another grid \(16 x 12 x 8"):
        read_labels(path, LIKE)
