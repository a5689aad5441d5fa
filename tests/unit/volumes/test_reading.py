"""Every kind of file reads as the same volume, and every bad file says why it does not."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from fewshot.errors import FewshotError
from fewshot.volumes import SliceSpec, SliceStack, read_volume

OBLIQUE = np.array([[0.8, -1.2, 0.3, -20.0], [0.6, 1.6, 0.1, 30.0], [-0.1, 0.2, 2.9, 7.5], [0, 0, 0, 1]])
RIGID = nib.affines.from_matvec(
    np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]) * [0.7, 0.9, 3.0], [-20.0, 30.0, 7.5]
)


def grey(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = RIGID) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def save_itk(path: Path, array: np.ndarray, affine: np.ndarray = RIGID) -> Path:
    """Write [X, Y, Z] by SimpleITK, with the geometry worked out here on its own."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    flip = np.diag([-1, -1, 1])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((flip @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((flip @ affine[:3, 3]).tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_format_gives_the_same_volume(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"patient.1{extension}"
    (save_nifti if ".nii" in extension else save_itk)(path, grey())
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, grey())
    np.testing.assert_allclose(volume.affine, RIGID, atol=1e-4)
    assert volume.array.dtype == np.float32
    assert (volume.name, volume.path, volume.notes) == ("patient.1", path, ())
    assert volume.calibrated


def test_a_sheared_affine_is_kept(tmp_path: Path) -> None:
    np.testing.assert_allclose(
        read_volume(save_nifti(tmp_path / "a.nii", grey(), OBLIQUE)).affine, OBLIQUE, atol=1e-5
    )


def test_stored_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").array, image.get_fdata(), atol=1e-4)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(grey(), RIGID), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, grey())


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_a_flat_file_has_one_slice(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"flat{extension}"
    if extension == ".nii.gz":
        save_nifti(path, grey((4, 5)))
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(grey((4, 5)).T.copy()), str(path))
    np.testing.assert_array_equal(read_volume(path).array, grey((4, 5))[:, :, np.newaxis])


# pictures


@pytest.mark.parametrize(
    ("extension", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.float32)]
)
def test_the_axial_slice_of_a_picture_is_the_picture(tmp_path: Path, extension: str, dtype: type) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (5, 7)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / f"x{extension}")
    volume = read_volume(tmp_path / f"x{extension}")
    assert volume.array.shape == (7, 5, 1)
    assert not volume.calibrated
    np.testing.assert_array_equal(SliceStack(volume, SliceSpec(), patch=2).slices(volume.array)[0], pixels)


def test_jpg_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 9), 77, np.uint8)).save(tmp_path / "x.JPG")
    volume = read_volume(tmp_path / "x.JPG")
    assert volume.name == "x"
    np.testing.assert_allclose(volume.array, 77, atol=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "LA", "1"])
def test_every_colour_mode_becomes_grey(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.fromarray(pixels).convert(mode).save(path)
    slice_ = read_volume(path).array[:, :, 0].T
    assert (slice_[:, :4] == slice_.min()).all()
    assert (slice_[:, 4:] == slice_.max()).all()
    assert slice_.max() > slice_.min()


def test_a_turned_photo_is_read_as_it_is_shown(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the upper half goes to the right
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=100)
    array = read_volume(tmp_path / "x.jpg").array
    assert array.shape == (16, 32, 1)
    assert array[8:].min() > 200


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.zeros((4, 4), np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(FewshotError, match="3 pages"):
        read_volume(tmp_path / "x.tif")


# colour volumes


def colour() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)


def save_colour(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "struct.nii":
        voxels = np.ascontiguousarray(colour()).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        return save_nifti(path, voxels)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(colour().transpose(2, 1, 0, 3)), isVector=True)
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("kind", ["struct.nii", "vector.nii.gz", "vector.nrrd", "vector.mha"])
def test_colour_volumes_become_grey_and_say_so(tmp_path: Path, kind: str) -> None:
    volume = read_volume(save_colour(tmp_path, kind))
    expected = colour().astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(volume.array, expected, atol=1e-3)
    assert any("grey" in note for note in volume.notes)


# modality


def hounsfield() -> np.ndarray:
    array = np.full((10, 10, 10), -1000, np.int16)
    array[3:8, 3:8, 3:8] = 40
    return array


def test_hounsfield_units_are_taken_for_ct_and_noted(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii", hounsfield()))
    assert volume.modality == "CT"
    assert any("CT" in note for note in volume.notes)


@pytest.mark.parametrize(
    "array",
    [grey(), grey() - 400, np.where(hounsfield() < 0, -1000, 3000), hounsfield() * 30],
    ids=["from 0", "no air", "no soft tissue", "far below air"],
)
def test_other_values_are_not_taken_for_ct(tmp_path: Path, array: np.ndarray) -> None:
    assert read_volume(save_nifti(tmp_path / "a.nii", array.astype(np.int16))).modality == ""


def test_what_the_caller_knows_goes_first(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii", hounsfield()), modality="MR FLAIR")
    assert (volume.modality, volume.notes) == ("MR", ())


# mended input: read, and said in a note


def test_one_more_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii", grey()[..., np.newaxis, np.newaxis]))
    np.testing.assert_array_equal(volume.array, grey())


def test_nan_and_infinity_become_the_finite_minimum(tmp_path: Path) -> None:
    array = grey().astype(np.float64) - 7
    expected = array.copy()
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    array[1, 1, 1] = 1e300  # no float32 holds it
    expected[0, 0, :3] = expected[1, 1, 1] = np.delete(expected.ravel(), [0, 1, 2, 37]).min()
    volume = read_volume(save_nifti(tmp_path / "a.nii", array))
    np.testing.assert_array_equal(volume.array, expected.astype(np.float32))
    assert volume.notes == ("4 NaN or infinite voxels set to the minimum",)


def test_a_constant_volume_is_allowed_and_noted(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii", np.full((3, 4, 5), 9, np.uint8)))
    assert any("the same" in note for note in volume.notes)


@pytest.mark.parametrize("fault", ["missing", "singular", "not finite"])
def test_without_a_usable_affine_the_spacing_is_kept_and_noted(tmp_path: Path, fault: str) -> None:
    image = nib.Nifti1Image(grey(), None if fault == "missing" else np.diag([2.0, 3, 4, 1]))
    image.header.set_zooms((2, 3, 4))
    if fault != "missing":
        image.header["qform_code"] = 0
        image.header["sform_code"] = 1
        image.header["srow_y"] = 0 if fault == "singular" else np.nan
        # written by hand: nibabel would write its own affine into the header
        image.header["vox_offset"] = 352
        data = image.header.binaryblock + b"\0" * 4 + np.asfortranarray(grey()).tobytes(order="F")
        (tmp_path / "a.nii").write_bytes(data)
    else:
        nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array, grey())
    assert volume.spacing == (2.0, 3.0, 4.0)
    assert any("affine" in note for note in volume.notes)


# refused input: one sentence that names the file, the reason and what to do


def refused(path: Path, *words: str) -> None:
    with pytest.raises(FewshotError) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert all(word in sentence for word in words), sentence
    assert ";" in sentence, f"does not say what to do: {sentence}"


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_more_than_one_volume_is_refused(tmp_path: Path, extension: str) -> None:
    array = grey((4, 5, 6, 2))
    path = tmp_path / f"a{extension}"
    if extension == ".nii.gz":
        save_nifti(path, array)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T.copy(), isVector=False), str(path))
    refused(path, "more than one volume", "4 x 5 x 6 x 2")


def test_many_channels_are_several_volumes(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 7), np.float32), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    refused(tmp_path / "a.nrrd", "more than one volume")


def test_three_unlabelled_volumes_are_not_colour(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii", grey((4, 5, 6, 3))), "more than one volume")


def test_a_line_of_voxels_is_refused(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii", grey((4,))), "axis")


def test_no_finite_voxel_is_refused(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii", np.full((2, 3, 4), np.nan, np.float32)), "no finite voxel")


def test_an_empty_grid_is_refused(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii", np.zeros((3, 0, 4), np.float32)), "empty")


@pytest.mark.parametrize("extension", [".nii", ".nrrd"])
def test_complex_numbers_are_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    if extension == ".nii":
        save_nifti(path, grey().astype(np.complex64))
    else:
        real = SimpleITK.GetImageFromArray(grey().astype(np.float32))
        SimpleITK.WriteImage(SimpleITK.RealAndImaginaryToComplex(real, real), str(tmp_path / "a.mha"))
        path = tmp_path / "a.mha"
    refused(path, "complex")


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.98])
def test_a_file_that_breaks_off_is_refused(tmp_path: Path, extension: str, kept: float) -> None:
    path = tmp_path / f"a{extension}"
    if extension in (".png", ".jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    else:
        (save_nifti if ".nii" in extension else save_itk)(path, grey((20, 20, 20)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(path, "damaged or incomplete")


def test_a_gzip_with_a_broken_middle_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", grey((20, 20, 20)))
    data = bytearray(gzip.compress(gzip.decompress(path.read_bytes())))
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    refused(path, "damaged or incomplete")


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".dcm"])
def test_another_file_under_a_known_extension_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    path.write_text("This is not an image.\n" * 100)
    refused(path, "damaged")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii.gz", "does not exist")


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a"])
def test_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    refused(tmp_path / name, ".nii.gz", ".nrrd")
