"""The drawn frames of a DICOM segmentation: their pixels, and where these lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from fewshot.errors import FewshotError
from fewshot.volumes import Volume
from fewshot.volumes.itk import LPS_TO_RAS

FULL = 255
"""MaximumFractionalValue where a SEG does not tell it: all of 8 bits."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The drawn part of a frame.

    Attributes:
        index: position of its segment in the header.
        mask: bool [rows, columns], cut to what is drawn.
        affine: [4, 4], (column, row, millimetres off the plane) -> LPS millimetres.
        distance: millimetres to the next frame as the SEG declares it (0: it does not), and slice thickness.
    """

    index: int
    mask: np.ndarray
    affine: np.ndarray
    distance: float
    thickness: float


def drawn_frames(dataset: Dataset, what: str, numbers: Sequence[int], volume: Volume) -> Iterator[Frame]:
    """The frames of a SEG on which something is drawn.

    Args:
        dataset: The SEG with its pixels.
        what: How messages begin: "The segmentation ...".
        numbers: The segments' numbers in the order of the header.
        volume: The image that the SEG was drawn on.

    Raises:
        FewshotError: Pixels, geometry or the segment of a frame are missing or damaged.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    for at, mask in enumerate(_masks(dataset, what)):
        if not mask.any():
            continue
        own = groups[at] if at < len(groups) else Dataset()

        def tell(group: str, keyword: str, own: Dataset = own) -> Any:
            return (own.get(group) or shared.get(group) or [Dataset()])[0].get(keyword)

        number = tell("SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if not isinstance(number, int) or number not in numbers:
            raise FewshotError(
                f"{what} does not say which segment its frame {at + 1} shows; export it again."
            )
        try:
            affine = _affine(
                tell("PlanePositionSequence", "ImagePositionPatient"),
                tell("PlaneOrientationSequence", "ImageOrientationPatient"),
                tell("PixelMeasuresSequence", "PixelSpacing"),
            )
            distance = abs(float(tell("PixelMeasuresSequence", "SpacingBetweenSlices") or 0))
            thickness = abs(float(tell("PixelMeasuresSequence", "SliceThickness") or 0))
        except (TypeError, ValueError) as error:
            raise FewshotError(
                f"{what} has damaged numbers in its frame {at + 1}; export it again."
            ) from error
        if affine is None:
            # an image without position (a radiograph) has a single place for a frame of its size
            if volume.shape != (mask.shape[1], mask.shape[0], 1):
                raise FewshotError(f"{what} does not say where its frame {at + 1} lies; export it again.")
            affine = LPS_TO_RAS @ volume.affine
            affine[:3, 2] /= np.linalg.norm(affine[:3, 2])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        affine[:, 3] = affine @ (columns[0], rows[0], 0, 1)
        yield Frame(
            index=numbers.index(number),
            mask=mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy(),
            affine=affine,
            distance=distance,
            thickness=thickness,
        )


def _masks(dataset: Dataset, what: str) -> Iterator[np.ndarray]:
    """Every frame's mask, bool [rows, columns].

    Raises:
        FewshotError: There are no pixels, or they are damaged or of a kind that is not read.
    """
    kind = dataset.get("SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL"):
        raise FewshotError(f"{what} is of the type {kind or 'none'}; export it as BINARY or FRACTIONAL.")
    frames, rows, columns = (int(dataset.get(key) or 0) for key in ("NumberOfFrames", "Rows", "Columns"))
    frames = frames if "NumberOfFrames" in dataset else 1
    if not (frames and rows and columns and dataset.get("PixelData")):
        raise FewshotError(f"{what} holds no frames: nothing was drawn, or it was saved without its pixels.")
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    size = rows * columns
    if dataset.get("BitsAllocated") == 1 and not (syntax and syntax.is_compressed and syntax.is_encapsulated):
        # frame by frame: a hundred organs unpacked at once take gigabytes
        packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
        if packed.size * 8 < frames * size:
            raise FewshotError(f"{what} is damaged: its pixels break off; export it again.")
        for start in range(0, frames * size, size):
            bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
            yield bits[start % 8 :][:size].reshape(rows, columns).astype(bool)
        return
    try:
        pixels = dataset.pixel_array.reshape(frames, rows, columns)
    except Exception as error:  # the decoders of several libraries raise whatever they like
        reason = (
            str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        )
        raise FewshotError(f"{what} has damaged or unreadable pixels ({reason}); export it again.") from error
    half = int(dataset.get("MaximumFractionalValue") or FULL) / 2 if kind == "FRACTIONAL" else 0.5
    for frame in pixels:
        yield frame >= half


def _affine(position: Any, orientation: Any, spacing: Any) -> np.ndarray | None:
    """(column, row, millimetres off the plane) -> LPS [4, 4] by DICOM's attributes, None where they are missing."""
    place, directions, steps = (
        np.array(value or (), dtype=np.float64) for value in (position, orientation, spacing)
    )
    if (place.size, directions.size, steps.size) != (3, 6, 2):
        return None
    normal = np.cross(directions[:3], directions[3:])
    if (
        not np.isfinite([*place, *directions, *steps]).all()
        or np.linalg.norm(normal) < 0.5
        or min(steps) <= 0
    ):
        return None
    affine = np.eye(4)
    # PixelSpacing tells the step from row to row first
    affine[:3, 0], affine[:3, 1] = directions[:3] * steps[1], directions[3:] * steps[0]
    affine[:3, 2], affine[:3, 3] = normal / np.linalg.norm(normal), place
    return affine
