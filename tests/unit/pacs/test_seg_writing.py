"""What is written as a SEG beside real DICOM files reads back voxel by voxel and name by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_volume
from lib.pacs import seg_writing
from lib.pacs.seg_reading import SegHeader, read_header, read_seg
from lib.pacs.seg_writing import colour_of, write_seg

SHAPE = (7, 5, 6)  # columns, rows, slices
CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
ACROSS, DOWN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
NAMES = {1: "Leber", 2: "Größe der linken Niere", 3: "spleen", 9: "tumour (old)"}


def save_series(
    folder: Path,
    *,
    slices: int = SHAPE[2],
    tilt: float = 0.0,
    placed: bool = True,
    charset: str = "ISO_IR 100",
) -> Volume:
    """A coronal, oblique CT series (or one radiograph without position), files in another order than slices."""
    folder.mkdir(parents=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    step = 2.5 * np.cross(ACROSS, DOWN) + tilt * DOWN
    for at in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CT if placed else CR
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(folder), {}, file_meta=meta, preamble=b"\0" * 128)
        file.is_little_endian, file.is_implicit_VR = True, False
        file.SpecificCharacterSet = charset
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, frame
        file.PatientName, file.PatientID = "Müller^Jörg", "p1"
        file.StudyDate, file.StudyTime = "20200101", "1:01"  # not as the standard wants it
        file.Modality = "CT" if placed else "CR"
        file.InstanceNumber = at + 1
        file.Columns, file.Rows = SHAPE[:2]
        file.PixelSpacing, file.SliceThickness = [0.9, 0.7], 5
        if placed:
            file.ImageOrientationPatient = [float(value) for value in (*ACROSS, *DOWN)]
            file.ImagePositionPatient = [round(float(value), 6) for value in (10, -20, 30) + at * step]
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 1
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        pixels = np.random.default_rng(at).integers(-1000, 1000, SHAPE[1::-1])
        file.PixelData = pixels.astype(np.int16).tobytes()
        file.save_as(folder / f"{(7 * at) % 11:02d}.dcm", write_like_original=False)
    return read_volume(folder)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return save_series(tmp_path / "image")


def drawn(values: list[int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint16)
    middle = slice(1, -1) if shape[2] > 2 else slice(None)  # the outermost slices stay empty
    labels[:, :, middle] = np.random.default_rng(0).choice([0, *values], labels[:, :, middle].shape)
    return labels


def write(labels: np.ndarray, volume: Volume, out: Path, **options: object) -> SegHeader:
    assert volume.path is not None
    settings = {
        "description": "fewshot: auto, Prüfung",
        "algorithm": "MANUAL",
        "algorithm_name": "auto",
        "creator": "Jörg^Ä",
    }
    return write_seg(labels, NAMES, volume.path, volume, out, **(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[1, 2, 3, 9], [2], [9, 3]], ids=str)
def test_every_label_comes_back_under_its_name(volume: Volume, tmp_path: Path, values: list[int]) -> None:
    labels = drawn(values)
    header = write(labels, volume, tmp_path / "seg.dcm")
    assert [segment.name for segment in header.segments] == [NAMES[value] for value in sorted(values)]
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert read_header(dataset) == header
    read = read_seg(dataset, volume, image_series=header.image_series)
    for at, segment in enumerate(header.segments):
        value = next(value for value, name in NAMES.items() if name == segment.name)
        np.testing.assert_array_equal(read == at + 1, labels == value)
    assert (read > 0).sum() == (labels > 0).sum()


@pytest.mark.parametrize(
    ("slices", "tilt", "placed"),
    [(6, 0.6, True), (1, 0.0, True), (1, 0.0, False)],
    ids=["tilted", "2D", "CR"],
)
def test_other_images(tmp_path: Path, slices: int, tilt: float, placed: bool) -> None:
    volume = save_series(tmp_path / "image", slices=slices, tilt=tilt, placed=placed)
    labels = drawn([1, 2], (*SHAPE[:2], slices))
    header = write(labels, volume, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_seg(dataset, volume), labels)
    image = pydicom.dcmread(tmp_path / "image" / "00.dcm")
    assert header.image_series == image.SeriesInstanceUID
    assert dataset.StudyInstanceUID == header.study == image.StudyInstanceUID


def test_an_image_in_another_voxel_order(volume: Volume, tmp_path: Path) -> None:
    affine = volume.affine.copy()
    affine[:, 3] = affine @ (0, 0, SHAPE[2] - 1, 1)
    affine[:, 2] *= -1
    turned = replace(volume, array=volume.array[:, :, ::-1], affine=affine)
    labels = drawn([1, 3])
    write(labels[:, :, ::-1], turned, tmp_path / "seg.dcm")
    read = read_seg(pydicom.dcmread(tmp_path / "seg.dcm"), volume)
    np.testing.assert_array_equal(read, np.where(labels == 3, 2, labels))


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_texts_keep_their_letters(tmp_path: Path, charset: str) -> None:
    volume = save_series(tmp_path / "image", charset=charset)
    header = write(
        drawn([2]), volume, tmp_path / "seg.dcm", algorithm="AUTOMATIC", algorithm_name="Modell für Nieren"
    )
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(dataset.PatientName) == "Müller^Jörg"
    assert str(dataset.ContentCreatorName) == "Jörg^Ä"
    assert dataset.SeriesDescription == header.description == "fewshot: auto, Prüfung"
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentAlgorithmName == "Modell für Nieren"
    assert segment.SegmentLabel == segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == NAMES[2]


def test_a_persons_and_a_models_are_told_apart(volume: Volume, tmp_path: Path) -> None:
    person = write(drawn([1]), volume, tmp_path / "a.dcm", algorithm="MANUAL")
    model = write(drawn([1]), volume, tmp_path / "b.dcm", algorithm="AUTOMATIC")
    assert (person.by_model, model.by_model) == (False, True)
    assert "SegmentAlgorithmName" not in pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence[0]
    assert pydicom.dcmread(tmp_path / "b.dcm").SegmentSequence[0].SegmentAlgorithmName == "auto"


def test_each_is_a_series_of_its_own_and_the_later_one_is_newer(volume: Volume, tmp_path: Path) -> None:
    headers = [write(drawn([1]), volume, tmp_path / "seg.dcm") for _ in range(3)]
    instances = {header.series for header in headers}
    assert len(instances) == 3
    assert sorted(headers, key=lambda header: header.created) == headers
    assert len({header.created for header in headers}) == 3


def test_long_descriptions_are_cut(volume: Volume, tmp_path: Path) -> None:
    header = write(drawn([1]), volume, tmp_path / "seg.dcm", description="a\\b\n" + "x" * 90)
    assert header.description == "a/b " + "x" * 60


def test_colours_stay_with_their_names() -> None:
    assert colour_of("Spleen") == colour_of("spleen") == (157, 108, 162)  # MONAI Label's
    assert colour_of("Größe") == colour_of("Größe") != colour_of("Groesse")


def test_colours_are_in_the_file(volume: Volume, tmp_path: Path) -> None:
    write(drawn([1, 2]), volume, tmp_path / "seg.dcm")
    first, second = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert list(first.RecommendedDisplayCIELabValue) != list(second.RecommendedDisplayCIELabValue)


def test_the_converter_is_found_without_a_path(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    write(drawn([1]), volume, tmp_path / "seg.dcm")


def damaged(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "told"), [(damaged, "no DICOM could be loaded"), (shutil.rmtree, "not found")]
)
def test_the_converters_reason_is_told_and_nothing_is_left_behind(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], told: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    write(drawn([1]), volume, out / "seg.dcm")
    before = (out / "seg.dcm").read_bytes()
    spoil(tmp_path / "image")
    with pytest.raises(FewshotError, match=f"itkimage2segimage failed .*{told}"):
        write(drawn([1]), volume, out / "seg.dcm")
    assert [path.name for path in out.iterdir()] == ["seg.dcm"]
    assert (out / "seg.dcm").read_bytes() == before
    assert not list((tmp_path / "temporary").iterdir())


def test_a_missing_converter_is_told(volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seg_writing, "CONVERTER", "itkimage2nothing")
    with pytest.raises(FewshotError, match="itkimage2nothing is missing"):
        write(drawn([1]), volume, tmp_path / "seg.dcm")


@pytest.mark.parametrize(
    ("value", "name", "told"),
    [
        (4, None, "the label value 4 has no name"),
        (4, "  ", "the label value 4 has no name"),
        (4, "x" * 65, "cannot hold the label name"),
        (4, "left\\right", "cannot hold the label name"),
        (0, None, "nothing is labelled"),
    ],
)
def test_labels_that_a_seg_cannot_hold(
    volume: Volume, tmp_path: Path, value: int, name: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setitem(NAMES, value, name)
    with pytest.raises(FewshotError, match=told):
        write(drawn([value]), volume, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_labels_of_another_grid(volume: Volume, tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="the labels have the grid 7 x 5 x 4"):
        write(drawn([1])[:, :, :4], volume, tmp_path / "seg.dcm")


def test_no_folder_to_write_to(volume: Volume, tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="was not written"):
        write(drawn([1]), volume, tmp_path / "none" / "seg.dcm")
