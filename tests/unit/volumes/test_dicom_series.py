"""A folder of DICOM files is one volume, whatever lies in it and in whatever order, or says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_volume

SERIES = "1.2.826.0.1.3680043.8.498.1"
PIXELS = np.random.default_rng(0).integers(-1000, 1000, (4, 6, 7)).astype(np.int16)  # [S, rows, cols]
ACROSS, DOWN = (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)  # a sagittal series, LPS


def save_slice(
    path: Path,
    pixels: np.ndarray,
    position: Sequence[float],
    *,
    modality: str = "CT",
    series: str = SERIES,
    across: Sequence[float] = ACROSS,
    down: Sequence[float] = DOWN,
    spacing: tuple[float, float] = (0.7, 0.9),
) -> Path:
    """Write one slice: pixels [rows, cols]; position and directions LPS; spacing (across, down)."""
    image = SimpleITK.GetImageFromArray(pixels[np.newaxis], isVector=pixels.ndim == 3)
    image.SetSpacing([*spacing, 1.0])
    texts = {
        "0008|0060": modality,
        "0008|103e": f"{modality} test",
        "0020|000e": series,
        "0020|0032": "\\".join(f"{value:.6f}" for value in position),
        "0020|0037": "\\".join(f"{value:.6f}" for value in (*across, *down)),
    }
    for key, text in texts.items():
        image.SetMetaData(key, text)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)
    return path


def places(step: Sequence[float] = (2.5, 0.0, 0.0)) -> list[np.ndarray]:
    return [np.array([10.0, -20.0, 30.0]) + index * np.asarray(step) for index in range(len(PIXELS))]


@pytest.fixture
def save_series(tmp_path: Path) -> Callable[..., Path]:
    def save(positions: list[np.ndarray] | None = None, prefix: str = "", **options: object) -> Path:
        for index, position in enumerate(positions or places()):
            # names in an order that is not that of the slices
            save_slice(tmp_path / f"{prefix}{(7 * index) % 5}.dcm", PIXELS[index], position, **options)  # type: ignore[arg-type]
        return tmp_path

    return save


def at(volume: Volume, pixel: tuple[int, int, int]) -> np.ndarray:
    """LPS position of the voxel that holds a pixel (slice, row, col); pixel values are unique."""
    index = np.argwhere(volume.array == PIXELS[pixel])
    assert len(index) == 1
    return (volume.affine @ [*index[0], 1])[:3] * (-1, -1, 1)


def expected_place(step: Sequence[float], pixel: tuple[int, int, int]) -> np.ndarray:
    slice_, row, col = pixel
    return places(step)[slice_] + 0.7 * col * np.asarray(ACROSS) + 0.9 * row * np.asarray(DOWN)


@pytest.mark.parametrize(
    "step", [(2.5, 0, 0), (-2.5, 0, 0), (2.5, 0.4, 0.3)], ids=["forward", "back", "tilted"]
)
def test_every_pixel_lies_where_its_tags_say(save_series: Callable[..., Path], step: Sequence[float]) -> None:
    volume = read_volume(save_series(places(step)))
    assert volume.array.shape == (7, 6, 4)
    assert volume.modality == "CT"
    for pixel in [(0, 0, 0), (3, 5, 6), (1, 2, 3)]:
        np.testing.assert_allclose(at(volume, pixel), expected_place(step, pixel), atol=1e-3)
    assert any("tilted" in note for note in volume.notes) == (step[1] != 0)


def test_the_name_is_that_of_the_folder(save_series: Callable[..., Path]) -> None:
    folder = save_series()
    assert read_volume(folder).name == folder.name


def test_a_single_file_is_one_slice(tmp_path: Path) -> None:
    path = save_slice(tmp_path / "scan.dcm", PIXELS[1], places()[1])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[:, :, 0].T, PIXELS[1])
    np.testing.assert_allclose(at(volume, (1, 2, 3)), expected_place((2.5, 0, 0), (1, 2, 3)), atol=1e-3)
    assert (volume.name, volume.modality, volume.calibrated) == ("scan", "CT", True)


def test_a_file_without_extension_is_known_by_its_content(tmp_path: Path) -> None:
    path = save_slice(tmp_path / "scan.dcm", PIXELS[1], places()[1]).rename(tmp_path / "IM0001")
    np.testing.assert_array_equal(read_volume(path).array[:, :, 0].T, PIXELS[1])


def test_white_as_the_lowest_value_is_turned_round(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    path = save_slice(tmp_path / "x.dcm", pixels, (0, 0, 0), modality="DX")
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))  # the writer knows no other
    volume = read_volume(path)
    assert volume.modality == "XR"
    np.testing.assert_array_equal(volume.array[:, :, 0].T - volume.array.min(), 11 - pixels)


def test_without_pixel_spacing_the_size_is_unknown(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="takes the tag out of the file of this test")
    path = save_slice(tmp_path / "x.dcm", PIXELS[0], (0, 0, 0), modality="CR")
    assert read_volume(path).spacing[:2] == pytest.approx((0.7, 0.9))
    dataset = pydicom.dcmread(path)
    del dataset.ImagerPixelSpacing
    dataset.save_as(path)
    volume = read_volume(path)
    assert (volume.modality, volume.calibrated) == ("XR", False)
    assert any("spacing" in note for note in volume.notes)


def test_colour_becomes_grey(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[1] = 200
    volume = read_volume(save_slice(tmp_path / "x.dcm", pixels, (0, 0, 0), modality="US"))
    np.testing.assert_allclose(volume.array[:, :, 0].T, pixels[..., 0], atol=1)
    assert any("grey" in note for note in volume.notes)


def test_objects_that_are_no_images_are_skipped(save_series: Callable[..., Path], tmp_path: Path) -> None:
    save_series()
    save_slice(tmp_path / "seg.dcm", PIXELS[0], places()[0], modality="SEG", series=SERIES + ".2")
    save_slice(tmp_path / "dose.dcm", PIXELS[0], places()[0], modality="RTDOSE", series=SERIES + ".3")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").write_text("not an image")
    (tmp_path / "folder").mkdir()
    volume = read_volume(tmp_path)
    assert volume.array.shape == (7, 6, 4)
    assert any("3 files" in note for note in volume.notes)


def test_slightly_uneven_slices_are_read_and_noted(save_series: Callable[..., Path]) -> None:
    positions = places()
    positions[1] = positions[1] + [0.4, 0, 0]
    volume = read_volume(save_series(positions))
    assert volume.spacing[2] == pytest.approx(2.5)
    assert any("uneven" in note for note in volume.notes)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(FewshotError) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert all(word in sentence for word in (str(path), ";", *words)), sentence


def test_a_missing_slice_is_refused_with_its_place(save_series: Callable[..., Path], tmp_path: Path) -> None:
    save_series()
    (tmp_path / "2.dcm").unlink()  # the second slice
    refused(tmp_path, "lacks slices", "5.00 mm", "2.50 mm", "0.dcm", "4.dcm")


def test_two_time_points_are_refused(save_series: Callable[..., Path]) -> None:
    save_series()
    refused(save_series(prefix="later"), "one position")


def test_two_series_are_refused_by_name(save_series: Callable[..., Path]) -> None:
    save_series()
    refused(
        save_series(prefix="other", modality="MR", series=SERIES + ".2"), "CT test", "MR test", SERIES + ".2"
    )


def test_a_scout_in_the_series_is_refused(save_series: Callable[..., Path], tmp_path: Path) -> None:
    save_series()
    save_slice(tmp_path / "scout.dcm", PIXELS[0], (0, 0, 0), across=(1, 0, 0), down=(0, 1, 0))
    refused(tmp_path, "scout", "direction")


def test_slices_of_different_size_are_refused(save_series: Callable[..., Path], tmp_path: Path) -> None:
    save_series()
    save_slice(tmp_path / "small.dcm", PIXELS[0][:3], places()[0] - [2.5, 0, 0])
    refused(tmp_path, "small.dcm", "size")


def test_an_object_that_is_no_image_is_refused(tmp_path: Path) -> None:
    refused(save_slice(tmp_path / "seg.dcm", PIXELS[0], places()[0], modality="SEG"), "DICOM SEG object")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no DICOM image series")


@pytest.mark.parametrize("name", ["0.dcm", "2.dcm"])  # a slice less at the end would not show otherwise
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_file_that_breaks_off_is_refused(
    save_series: Callable[..., Path], tmp_path: Path, name: str, kept: float
) -> None:
    save_series()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(FewshotError, match=rf"{name}.*damaged"):
            read_volume(path)


def test_a_structured_object_without_pixels_is_skipped(
    save_series: Callable[..., Path], tmp_path: Path
) -> None:
    pydicom = pytest.importorskip("pydicom", reason="writes the RTSTRUCT of this test")
    save_series()
    structures = pydicom.Dataset()
    structures.SOPClassUID, structures.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
    structures.Modality, structures.SeriesInstanceUID = "RTSTRUCT", SERIES + ".4"
    structures.file_meta = pydicom.dataset.FileMetaDataset()
    structures.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    structures.file_meta.MediaStorageSOPClassUID = structures.SOPClassUID
    structures.file_meta.MediaStorageSOPInstanceUID = structures.SOPInstanceUID
    structures.is_little_endian, structures.is_implicit_VR = True, False
    structures.save_as(tmp_path / "structures.dcm", write_like_original=False)
    assert read_volume(tmp_path).array.shape == (7, 6, 4)
    refused(tmp_path / "structures.dcm", "image")
