"""Segmentations of any writer come onto the image's own grid: right voxels, right names, or a sentence why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from fewshot.errors import FewshotError
from fewshot.volumes import Volume
from lib.pacs.seg_reading import HEADER_TAGS, SegHeader, Segment, read_header, read_seg

IMAGE = "1.2.3.4"
SHAPE = (7, 5, 6)  # columns, rows, slices: frames do not end with a byte
SPACING = (0.7, 0.9, 2.5)
STRAIGHT = np.eye(3)
TURN = np.array([[0.8, 0.0, 0.6], [0.6, 0.0, -0.8], [0.0, 1.0, 0.0]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(
    turn: np.ndarray = STRAIGHT, spacing: Sequence[float] = SPACING, tilt: float = 0.0
) -> np.ndarray:
    """(column, row, slice) -> LPS."""
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 2] += tilt * turn[:, 1]
    affine[:3, 3] = (-31.5, 12.25, 100.0)
    return affine


def volume_of(affine: np.ndarray, shape: Sequence[int] = SHAPE) -> Volume:
    # zeros that take no memory
    return Volume(np.broadcast_to(np.float32(0), tuple(shape)), LPS @ affine, name="ct")


Frame = tuple[int, int, np.ndarray]
"""Segment number, slice, mask [columns, rows]."""


def frames_of(labels: np.ndarray) -> list[Frame]:
    """Frames as viewers save them: of each label, the slices where it is drawn."""
    return [
        (int(value), at, labels[:, :, at] == value)
        for value in np.unique(labels[labels > 0])
        for at in range(labels.shape[2])
        if (labels[:, :, at] == value).any()
    ]


def seg(
    frames: Sequence[Frame],
    affine: np.ndarray,
    names: Sequence[str] = ("liver", "spleen", "tumour"),
    *,
    shared: bool = True,
    between: bool = True,
    algorithm: str = "MANUAL",
    change: Callable[[Dataset], None] = lambda _: None,
) -> Dataset:
    """A SEG as OHIF and others make it, through a file."""
    measures, orientation = Dataset(), Dataset()
    column, row = affine[:3, 0], affine[:3, 1]
    measures.PixelSpacing = [round(float(np.linalg.norm(step)), 6) for step in (row, column)]
    measures.SliceThickness = 5.0  # thicker than the slices are apart, as many a CT
    if between:
        measures.SpacingBetweenSlices = round(
            float(np.cross(column, row) @ affine[:3, 2])
            / measures.PixelSpacing[0]
            / measures.PixelSpacing[1],
            6,
        )
    directions = [*(column / np.linalg.norm(column)), *(row / np.linalg.norm(row))]
    orientation.ImageOrientationPatient = [round(float(value), 8) for value in directions]
    groups = []
    for number, at, _ in frames:
        position, segment, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(value), 6) for value in (affine @ (0, 0, at, 1))[:3]]
        segment.ReferencedSegmentNumber = number
        group.PlanePositionSequence = [position]
        group.SegmentIdentificationSequence = [segment]
        if not shared:
            group.PlaneOrientationSequence, group.PixelMeasuresSequence = [orientation], [measures]
        groups.append(group)
    common = Dataset()
    if shared:
        common.PlaneOrientationSequence, common.PixelMeasuresSequence = [orientation], [measures]
    segments = []
    for number, name in enumerate(names, start=1):
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = number, name, algorithm
        segments.append(item)
    reference = Dataset()
    reference.SeriesInstanceUID = IMAGE
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality = "SEG"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.SOPInstanceUID = "1.2.3.9"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    dataset.SeriesDescription = "mine"
    dataset.ContentDate, dataset.ContentTime = "20250102", "030405"
    dataset.ReferencedSeriesSequence = [reference]
    dataset.SegmentSequence = segments
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [common], groups
    dataset.SegmentationType = "BINARY"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = (
        1,
        "MONOCHROME2",
        0,
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.NumberOfFrames = len(frames)
    if frames:
        pixels = np.stack([mask.T for *_, mask in frames])
        _, dataset.Rows, dataset.Columns = pixels.shape
        packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
        dataset["PixelData"].VR = "OB"
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    change(dataset)
    file = BytesIO()
    dataset.save_as(file, write_like_original=False)
    return dcmread(BytesIO(file.getvalue()))


def in_eight_bits(dataset: Dataset) -> None:
    """FRACTIONAL with 120 in the first segment's pixels and 119 in the others'; half of 239 lies between."""
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = dataset.Rows * dataset.Columns
    pixels = bits[: size * dataset.NumberOfFrames].reshape(-1, size)
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        frame *= 120 if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1 else 119
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 239


def drawn(values: Sequence[int] = (1, 3), slices: Sequence[int] = (0, 1, 4), seed: int = 0) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.uint16)
    generator = np.random.default_rng(seed)
    labels[:, :, list(slices)] = generator.choice([0, *values], (*SHAPE[:2], len(slices)))
    return labels


GRIDS = {
    "axial": affine_of(),
    "oblique": affine_of(TURN),
    "tilted gantry": affine_of(TURN, tilt=0.6),
    "downwards": affine_of(np.diag([1.0, -1.0, -1.0])),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per frame"])
def test_what_was_drawn_on_the_image_comes_back_voxel_by_voxel(grid: str, shared: bool) -> None:
    labels = drawn()
    read = read_seg(seg(frames_of(labels), GRIDS[grid], shared=shared), volume_of(GRIDS[grid]))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_image_may_have_any_voxel_order(grid: str, order: tuple[int, int, int]) -> None:
    labels = drawn()
    affine = GRIDS[grid].copy()
    affine[:, 3] = affine @ (SHAPE[0] - 1, 0, SHAPE[2] - 1, 1)
    affine[:, [0, 2]] *= -1
    turned = affine[:, [*order, 3]]
    expected = labels[::-1, :, ::-1].transpose(order)
    read = read_seg(seg(frames_of(labels), GRIDS[grid]), volume_of(turned, expected.shape))
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("between", [True, False])
def test_slices_left_out_stay_empty(between: bool) -> None:
    labels = drawn(slices=(1, 3, 5))
    read = read_seg(seg(frames_of(labels), GRIDS["oblique"], between=between), volume_of(GRIDS["oblique"]))
    np.testing.assert_array_equal(read, labels)


def test_one_frame_is_enough() -> None:
    labels = drawn(values=(2,), slices=(3,))
    dataset = seg(frames_of(labels), GRIDS["axial"], between=False)
    del dataset.NumberOfFrames
    np.testing.assert_array_equal(read_seg(dataset, volume_of(GRIDS["axial"])), labels)


def test_values_are_positions_in_the_list_whatever_the_numbers() -> None:
    labels = drawn()

    def renumber(dataset: Dataset) -> None:
        numbers = {1: 40, 2: 7, 3: 5}
        for item in dataset.SegmentSequence:
            item.SegmentNumber = numbers[item.SegmentNumber]
        for group in dataset.PerFrameFunctionalGroupsSequence:
            item = group.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = numbers[item.ReferencedSegmentNumber]

    dataset = seg(frames_of(labels), GRIDS["axial"], change=renumber)
    assert [segment.number for segment in read_header(dataset).segments] == [40, 7, 5]
    np.testing.assert_array_equal(read_seg(dataset, volume_of(GRIDS["axial"])), labels)


@pytest.mark.parametrize("compressed", [False, True])
def test_half_and_more_of_a_fraction_counts(compressed: bool) -> None:
    labels = drawn()

    def change(dataset: Dataset) -> None:
        in_eight_bits(dataset)
        if compressed:
            dataset.compress(RLELossless)

    read = read_seg(seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"]))
    np.testing.assert_array_equal(read, np.where(labels == 1, 1, 0))


def test_a_coarser_grid_that_reaches_beyond_the_image() -> None:
    fine = affine_of(TURN, (1.0, 1.0, 2.0))
    coarse = affine_of(TURN, (2.0, 2.0, 4.0))
    # the first coarse voxel lies outside, the second holds the first 2 x 2 x 2 of the image
    coarse[:, 3] = fine @ (-1.5, -1.5, -1.5, 1)
    labels = np.random.default_rng(3).integers(0, 3, (5, 4, 5)).astype(np.uint16)
    labels[:, :, 0] = 0
    expected = labels[1:, 1:, 1:].repeat(2, 0).repeat(2, 1).repeat(2, 2)[:7, :5, :8]
    read = read_seg(seg(frames_of(labels), coarse), volume_of(fine, (7, 5, 8)))
    np.testing.assert_array_equal(read, expected)


def test_a_coarser_distance_of_slices_alone() -> None:
    fine, coarse = affine_of(spacing=(1, 1, 2)), affine_of(spacing=(1, 1, 6))
    coarse[:, 3] = fine @ (0, 0, 1, 1)
    labels = drawn(slices=(0, 1, 3))
    read = read_seg(seg(frames_of(labels), coarse), volume_of(fine, (7, 5, 18)))
    np.testing.assert_array_equal(read, labels.repeat(3, 2))


def test_frames_a_little_farther_apart_than_declared_leave_no_hole() -> None:
    def change(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 2.5

    labels = np.ones((7, 5, 2), dtype=np.uint16)
    dataset = seg(frames_of(labels), affine_of(spacing=(1, 1, 3)), change=change)
    assert read_seg(dataset, volume_of(affine_of(spacing=(1, 1, 0.5)), (7, 5, 7))).all()


def test_a_finer_grid_gives_what_lies_at_each_voxel() -> None:
    fine, coarse = affine_of(TURN, (0.5, 0.5, 1.0)), affine_of(TURN, (1.5, 1.5, 3.0))
    coarse[:, 3] = fine @ (1, 1, 1, 1)
    labels = np.random.default_rng(3).integers(0, 3, (12, 9, 15)).astype(np.uint16)
    read = read_seg(seg(frames_of(labels), fine), volume_of(coarse, (4, 3, 5)))
    np.testing.assert_array_equal(read, labels[1::3, 1::3, 1::3])


def test_what_lies_between_the_slices_does_not_vanish() -> None:
    fine, coarse = affine_of(spacing=(1, 1, 1)), affine_of(spacing=(1, 1, 5))
    labels = np.zeros((7, 5, 30), dtype=np.uint16)
    labels[2:4, 1, 12] = 1
    labels[:, :, 20:] = 2
    read = read_seg(seg(frames_of(labels), fine), volume_of(coarse))
    assert (read[2:4, 1, 2] == 1).all()
    assert (read == 1).sum() == 2
    assert (read[:, :, 4:] == 2).all()


def test_an_inclusion_is_kept_wherever_it_is_listed() -> None:
    organ = np.ones(SHAPE[:2], dtype=bool)
    lesion = np.zeros(SHAPE[:2], dtype=bool)
    lesion[2:4, 1:3] = True
    for first, second in [(1, 2), (2, 1)]:
        read = read_seg(
            seg([(first, 2, organ), (second, 2, lesion)], GRIDS["axial"]), volume_of(GRIDS["axial"])
        )
        np.testing.assert_array_equal(read[:, :, 2], np.where(lesion, second, first))


def test_of_two_equal_segments_the_higher_number_counts() -> None:
    left, right = np.zeros(SHAPE[:2], dtype=bool), np.zeros(SHAPE[:2], dtype=bool)
    left[0:4], right[2:6] = True, True
    read = read_seg(seg([(3, 2, left), (1, 2, right)], GRIDS["axial"]), volume_of(GRIDS["axial"]))
    assert read[:, 0, 2].tolist() == [3, 3, 3, 3, 1, 1, 0]


def without_places(dataset: Dataset) -> None:
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


@pytest.mark.parametrize("change", [lambda _: None, without_places], ids=["placed", "without position"])
def test_a_single_picture(change: Callable[[Dataset], None]) -> None:
    labels = drawn(slices=(0,))[:, :, :1]
    read = read_seg(
        seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"], (7, 5, 1))
    )
    np.testing.assert_array_equal(read, labels)


def test_another_frame_of_reference_is_no_reason_to_refuse() -> None:
    labels = drawn()

    def change(dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = "9.9.9"

    read = read_seg(seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"]))
    np.testing.assert_array_equal(read, labels)


def test_frames_without_a_stroke_may_lie_anywhere() -> None:
    labels = drawn()
    frames = [*frames_of(labels), (2, 99, np.zeros(SHAPE[:2], dtype=bool))]
    np.testing.assert_array_equal(read_seg(seg(frames, GRIDS["axial"]), volume_of(GRIDS["axial"])), labels)


def test_nothing_drawn_is_an_empty_label_map() -> None:
    frames = [(1, 2, np.zeros(SHAPE[:2], dtype=bool))]
    assert not read_seg(seg(frames, GRIDS["axial"]), volume_of(GRIDS["axial"])).any()


def test_a_large_image_takes_well_under_a_second() -> None:
    shape = (512, 512, 400)
    affine = affine_of(TURN)
    mask = np.zeros(shape[:2], dtype=bool)
    mask[5:500, 5:500] = True
    dataset = seg([(1 + at % 2, 100 + at, mask) for at in range(20)], affine)
    start = time.process_time()
    read = read_seg(dataset, volume_of(affine, shape))
    took = time.process_time() - start
    assert (read[:, :, 101] == 2 * mask).all()
    assert took < 1.0


def test_frames_across_the_image_need_no_memory_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    affine = affine_of(spacing=(1, 1, 1))
    mask = np.ones((9, 9), dtype=bool)
    dataset = seg([(1, 4, mask)], affine_of(TURN, (1, 1, 1)), between=False)
    whole = read_seg(dataset, volume_of(affine, (20, 20, 20)))
    monkeypatch.setattr("lib.pacs.seg_placing.CHUNK", 500)
    np.testing.assert_array_equal(read_seg(dataset, volume_of(affine, (20, 20, 20))), whole)
    assert whole.sum() > 40


def remove(*keywords: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def put(**values: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def several_series(dataset: Dataset) -> None:
    another = Dataset()
    another.SeriesInstanceUID = "7.7"
    dataset.ReferencedSeriesSequence.append(another)


def damaged_rle(dataset: Dataset) -> None:
    in_eight_bits(dataset)
    dataset.compress(RLELossless)
    dataset.PixelData = dataset.PixelData[:40] + b"\xff" * 6 + dataset.PixelData[46:-30] + b"\0" * 30


def next_slice(dataset: Dataset) -> None:
    place = dataset.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    place.ImagePositionPatient = [-31.5, 12.25, 100.0 + 6 * 2.5]


def far_away(dataset: Dataset) -> None:
    place = dataset.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    place.ImagePositionPatient = [-31.5, 12.25, 500.0]


def beside(dataset: Dataset) -> None:
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[0] = 40.0


def unknown_segment(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def flat(dataset: Dataset) -> None:
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def twice(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentNumber = 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove("PixelData"), "holds no frames"),
        (put(NumberOfFrames=0), "holds no frames"),
        (put(PixelData=b"\0\0"), "pixels break off"),
        (damaged_rle, "damaged or unreadable pixels"),
        (without_places, "does not say where its frame 1 lies"),
        (flat, "does not say where its frame 1 lies"),
        (remove("PerFrameFunctionalGroupsSequence"), "which segment its frame 1 shows"),
        (unknown_segment, "which segment its frame 1 shows"),
        (far_away, "lies outside the image ct with its segment 'tumour'"),
        (next_slice, "lies outside the image ct with its segment 'tumour'"),
        (beside, "lies outside the image ct"),
        (put(SegmentationType="LABELMAP"), "is of the type LABELMAP"),
        (remove("ReferencedSeriesSequence"), "which image it belongs to"),
        (several_series, "names 2 image series"),
        (remove("SegmentSequence"), "lists no segments"),
        (twice, "2 segments of the number 1"),
        (put(Modality="RTSTRUCT"), "is RTSTRUCT, no segmentation"),
    ],
)
def test_what_cannot_be_read_is_told(change: Callable[[Dataset], None], told: str) -> None:
    dataset = seg(frames_of(drawn()), GRIDS["axial"], change=change)
    with pytest.raises(FewshotError, match=told) as caught:
        read_seg(dataset, volume_of(GRIDS["axial"]))
    assert "1.2.3.5" in str(caught.value)


def test_a_seg_of_another_image_is_refused() -> None:
    dataset = seg(frames_of(drawn()), GRIDS["axial"])
    read_seg(dataset, volume_of(GRIDS["axial"]), image_series=IMAGE)
    with pytest.raises(FewshotError, match=r"belongs to the image series 1\.2\.3\.4, not to 1\.2"):
        read_seg(dataset, volume_of(GRIDS["axial"]), image_series="1.2")


def test_too_many_segments_are_refused() -> None:
    assert len(read_header(seg([], GRIDS["axial"], ["x"] * 255)).segments) == 255
    with pytest.raises(FewshotError, match="has 256 segments"):
        read_header(seg([], GRIDS["axial"], ["x"] * 256))


def test_the_header_of_a_file_and_of_metadata_is_the_same() -> None:
    dataset = seg(frames_of(drawn()), GRIDS["axial"], ["Größe der Niere ", "", "liver"])
    expected = SegHeader(
        series="1.2.3.5",
        study="1.2.3",
        image_series=IMAGE,
        description="mine",
        created="20250102030405.000000",
        segments=(
            Segment(1, "Größe der Niere", "MANUAL"),
            Segment(2, "Segment 2", "MANUAL"),
            Segment(3, "liver", "MANUAL"),
        ),
    )
    assert read_header(dataset) == expected
    del dataset.PixelData
    assert read_header(Dataset.from_json(dataset.to_json())) == expected
    entry = {tag: value for tag, value in dataset.to_json_dict().items() if tag in HEADER_TAGS}
    assert read_header(Dataset.from_json(entry)) == expected


@pytest.mark.parametrize("blank", ["\t", " \r\n", "\u00a0", "\0"])
def test_a_name_of_blanks_is_none(blank: str) -> None:
    dataset = seg([], GRIDS["axial"], ["liver", "x"])
    dataset.SegmentSequence[1].SegmentLabel = blank
    assert [segment.name for segment in read_header(dataset).segments] == ["liver", "Segment 2"]


@pytest.mark.parametrize(
    ("algorithms", "by_model"),
    [
        (["AUTOMATIC", "AUTOMATIC"], True),
        (["AUTOMATIC", "MANUAL"], False),
        (["SEMIAUTOMATIC", "AUTOMATIC"], False),
        (["", "AUTOMATIC"], False),
    ],
)
def test_a_model_drew_it_only_where_it_drew_every_segment(algorithms: list[str], by_model: bool) -> None:
    dataset = seg([], GRIDS["axial"], ["a", "b"])
    for item, algorithm in zip(dataset.SegmentSequence, algorithms, strict=True):
        item.SegmentAlgorithmType = algorithm
    assert read_header(dataset).by_model is by_model


@pytest.mark.parametrize(
    ("tags", "created"),
    [
        ({"ContentTime": "235959.25"}, "20250102235959.250000"),
        ({"ContentTime": "0930"}, "20250102093000.000000"),
        ({"ContentTime": ""}, "20250102000000.000000"),
        ({"ContentTime": "010000", "TimezoneOffsetFromUTC": "+0200"}, "20250101230000.000000"),
        ({"ContentDate": "", "SeriesDate": "20240101", "SeriesTime": "01"}, "20240101010000.000000"),
        ({"ContentDate": "", "InstanceCreationDate": "20230101"}, "20230101000000.000000"),
        ({"ContentDate": ""}, ""),
        ({"ContentDate": "00010101", "ContentTime": "01", "TimezoneOffsetFromUTC": "+0200"}, ""),
        ({"ContentDate": "00010101"}, "00010101030405.000000"),
        (
            {"ContentDate": "99991231", "TimezoneOffsetFromUTC": "-2300", "SeriesDate": "20240101"},
            "20240101230000.000000",
        ),
    ],
)
def test_the_time_it_was_made(tags: dict[str, str], created: str) -> None:
    assert read_header(seg([], GRIDS["axial"], change=put(**tags))).created == created
