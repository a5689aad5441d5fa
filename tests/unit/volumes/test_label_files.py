"""A label map means the same voxels however it was stored, or is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_labels, read_volume, resample_labels, write_labels

AFFINE = nib.affines.from_matvec(
    np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]) * [0.7, 0.9, 3.0], [-20.0, 30.0, 7.5]
)
SHAPE = (4, 5, 6)
LIKE = Volume(np.zeros(SHAPE, np.float32), AFFINE, name="case")
LABELS = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)


def save(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def stored_otherwise(
    array: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in the same places, with axes in another order and direction."""
    affine = affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return array.transpose(order), affine[:, [*order, 3]]


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("largest", [4, 300])
def test_written_labels_read_back_as_they_were(tmp_path: Path, extension: str, largest: int) -> None:
    labels = LABELS.astype(np.int64)
    labels[0, 0, 0] = largest
    path = tmp_path / f"seg{extension}"
    write_labels(path, labels, LIKE)
    np.testing.assert_array_equal(read_labels(path, LIKE), labels)
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_the_smallest_type_is_written(tmp_path: Path, largest: int, dtype: type) -> None:
    write_labels(tmp_path / "seg.nii.gz", np.full(SHAPE, largest), LIKE)
    assert nib.load(tmp_path / "seg.nii.gz").get_data_dtype() == dtype


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_a_sheared_grid_survives_writing(tmp_path: Path, extension: str) -> None:
    sheared = AFFINE.copy()
    sheared[:3, 2] += [0.5, 0.2, 0.1]
    like = Volume(LIKE.array, sheared)
    write_labels(tmp_path / f"seg{extension}", LABELS, like)
    np.testing.assert_allclose(read_volume(tmp_path / f"seg{extension}").affine, sheared, atol=1e-4)


@pytest.mark.parametrize("largest", [255, 1000])
def test_labels_of_a_picture_are_a_picture(tmp_path: Path, largest: int) -> None:
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "x.png")
    like = read_volume(tmp_path / "x.png")
    labels = np.zeros((7, 5, 1), np.uint16)
    labels[6, 1] = largest
    write_labels(tmp_path / "seg.png", labels, like)
    pixels = np.asarray(Image.open(tmp_path / "seg.png"))
    assert pixels[1, 6] == largest
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.png", like), labels)


def test_a_palette_and_a_bitmap_mean_their_numbers(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "x.png")
    like = read_volume(tmp_path / "x.png")
    values = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.ravel().tolist())
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png", like)[:, :, 0].T, values)
    Image.fromarray(values > 0).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.png", like)[:, :, 0].T, values > 0)


def test_equal_colour_channels_are_grey_and_others_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "x.png")
    like = read_volume(tmp_path / "x.png")
    values = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    Image.fromarray(np.stack([values] * 3, -1)).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "g.png", like)[:, :, 0].T, values)
    Image.fromarray(np.stack([values, values, values * 0], -1)).save(tmp_path / "c.png")
    with pytest.raises(FewshotError, match=r"c\.png.*several values"):
        read_labels(tmp_path / "c.png", like)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, True)])
def test_the_same_grid_in_another_axis_order_is_brought_back_exactly(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    path = save(tmp_path / "seg.nii.gz", *stored_otherwise(LABELS, AFFINE, order, flips))
    labels = read_labels(path, LIKE)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, LABELS)


def test_floats_that_hold_integers_and_rounded_affines_are_taken(tmp_path: Path) -> None:
    path = save(tmp_path / "seg.nii.gz", LABELS.astype(np.float64), np.round(AFFINE, 3))
    np.testing.assert_array_equal(read_labels(path, LIKE), LABELS)


def test_a_file_that_does_not_say_where_it_lies_is_taken_by_its_shape(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(LABELS, None), tmp_path / "seg.nii")
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.nii", LIKE), LABELS)


def shifted(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


@pytest.mark.parametrize(
    ("labels", "affine"),
    [
        (LABELS[:3], AFFINE),
        (LABELS, shifted(0.5)),
        (LABELS, AFFINE @ np.diag([2.0, 1, 1, 1])),
        (LABELS, nib.affines.from_matvec(np.diag([0.7, 0.9, 3.0]), AFFINE[:3, 3])),
        (LABELS.transpose(1, 0, 2), AFFINE),
    ],
    ids=["cropped", "shifted", "coarser", "turned", "transposed without saying so"],
)
def test_another_grid_is_refused_with_both_grids(
    tmp_path: Path, labels: np.ndarray, affine: np.ndarray
) -> None:
    path = save(tmp_path / "seg.nii.gz", labels, affine)
    with pytest.raises(FewshotError) as caught:
        read_labels(path, LIKE)
    sentence = str(caught.value)
    assert all(part in sentence for part in (str(path), "case", "4 x 5 x 6", "mm", ";")), sentence
    assert " x ".join(map(str, labels.shape)) in sentence


@pytest.mark.parametrize(
    ("value", "reason"), [(0.5, "no integers"), (np.nan, "no integers"), (-1, "from -1"), (65536, "to 65536")]
)
def test_values_that_are_no_labels_are_refused(tmp_path: Path, value: float, reason: str) -> None:
    labels = LABELS.astype(np.float32)
    labels[1, 1, 1] = value
    with pytest.raises(FewshotError, match=rf"seg\.nii.*{reason}.*;"):
        read_labels(save(tmp_path / "seg.nii", labels), LIKE)


def test_overlapping_segments_are_refused(tmp_path: Path) -> None:
    layers = np.random.default_rng(0).integers(0, 2, (6, 5, 4, 2)).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(layers, isVector=True), str(tmp_path / "a.seg.nrrd"))
    with pytest.raises(FewshotError, match="overlapping"):
        read_labels(tmp_path / "a.seg.nrrd", LIKE)


# writing


@pytest.mark.parametrize(
    ("name", "labels", "reason"),
    [
        ("seg.jpg", LABELS, "extension"),
        ("seg.dcm", LABELS, "extension"),
        ("seg.png", LABELS, "one slice"),
        ("seg.nii.gz", LABELS[:2], "2 x 5 x 6"),
        ("seg.nii.gz", LABELS.astype(np.float32), "integers"),
        ("seg.nii.gz", LABELS.astype(int) - 1, "from -1"),
        ("seg.nii.gz", LABELS.astype(int) + 65535, "not 0 to 65535"),
        ("no/such/folder/seg.nii.gz", LABELS, "check the folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, labels: np.ndarray, reason: str
) -> None:
    with pytest.raises(FewshotError, match=reason):
        write_labels(tmp_path / name, labels, LIKE)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seg.nii.gz"
    write_labels(path, LABELS, LIKE)

    def break_off(image: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(nib, "save", break_off)
    with pytest.raises(FewshotError, match="no space left"):
        write_labels(path, LABELS * 0, LIKE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["seg.nii.gz"]
    np.testing.assert_array_equal(read_labels(path, LIKE), LABELS)


# resampling


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_resampling_onto_the_same_lattice_is_exact(order: tuple[int, ...]) -> None:
    stored, affine = stored_otherwise(LABELS, AFFINE, order, (True, False, True))
    np.testing.assert_array_equal(resample_labels(stored, affine, LIKE), LABELS)


def test_a_slab_lands_where_it_was_cut() -> None:
    slab = LABELS[:, 1:4, 2:3]
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [0, 1, 2, 1])[:3]
    expected = np.zeros_like(LABELS)
    expected[:, 1:4, 2:3] = slab
    resampled = resample_labels(slab, affine, LIKE)
    assert resampled.dtype == np.uint16
    np.testing.assert_array_equal(resampled, expected)


def test_a_coarse_voxel_covers_its_whole_extent() -> None:
    """One voxel of 3 x 3 x 3 fine ones, values kept, also in the outer half of the outermost voxel."""
    like = Volume(np.zeros((6, 6, 6), np.float32), np.eye(4))
    coarse = nib.affines.from_matvec(np.diag([3.0, 3, 3]), [1, 1, 1])
    labels = np.arange(1, 9, dtype=np.uint16).reshape(2, 2, 2) * 100
    np.testing.assert_array_equal(
        resample_labels(labels, coarse, like), labels.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    )
