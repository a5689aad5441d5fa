"""Segmentations that cannot be read, or not onto this image, are told in a sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from fewshot.errors import FewshotError
from lib.pacs.seg_reading import read_header, read_seg
from tests.unit.pacs.segs import (
    GRIDS,
    IMAGE,
    drawn,
    frames_of,
    in_eight_bits,
    put,
    remove,
    seg,
    volume_of,
    without_places,
)


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
