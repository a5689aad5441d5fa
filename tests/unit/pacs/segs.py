"""Segmentations (SEG) as viewers and other tools write them, made for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from fewshot.volumes import Volume

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


def without_places(dataset: Dataset) -> None:
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


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
