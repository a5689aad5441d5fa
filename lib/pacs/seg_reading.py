"""DICOM segmentations (SEG): what they say of themselves, and their voxels on an image's own grid.

Frames are placed by their position in space and by nothing else; there may be fewer of them than the image has
slices, and their grid may be coarser or finer than the image's or reach beyond it. An image voxel takes the pixel
that its centre lies in: of the frame within half the distance between frames. Where the grids agree this is exact.
A segment so thin or small that no voxel's centre lies in it is kept in the voxels nearest to it.

Segments may overlap, label maps cannot: a voxel goes to the segment with fewer voxels in the SEG, because an
inclusion (a lesion in an organ) would vanish otherwise, and of two equal ones to that of the higher number.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from fewshot.errors import FewshotError
from fewshot.volumes import Volume
from fewshot.volumes.itk import LPS_TO_RAS
from lib.pacs.seg_frames import drawn_frames
from lib.pacs.seg_placing import paint, paint_nearest, spans_of

LARGEST = 255
"""Segments that one SEG may have: results are 8-bit label maps."""
ALGORITHMS = ("MANUAL", "SEMIAUTOMATIC", "AUTOMATIC")


_HEADER = (
    *("SOPInstanceUID", "Modality", "SeriesInstanceUID", "StudyInstanceUID", "SeriesDescription"),
    *("ReferencedSeriesSequence", "SegmentSequence", "TimezoneOffsetFromUTC"),
    *(
        "ContentDate",
        "ContentTime",
        "SeriesDate",
        "SeriesTime",
        "InstanceCreationDate",
        "InstanceCreationTime",
    ),
)
HEADER_TAGS = tuple(f"{tag_for_keyword(keyword):08X}" for keyword in _HEADER)
"""What `read_header` looks at and the object's UID, as DICOM JSON names it."""


@dataclass(frozen=True)
class Segment:
    """A segment: its number in the SEG, its name, and "MANUAL", "SEMIAUTOMATIC", "AUTOMATIC" or ""."""

    number: int
    name: str
    algorithm: str


@dataclass(frozen=True)
class SegHeader:
    """What a SEG says of itself.

    Attributes:
        series: its own SeriesInstanceUID.
        study: the study's UID.
        image_series: SeriesInstanceUID of the image that it was drawn on.
        description: SeriesDescription.
        created: "YYYYMMDDHHMMSS.ffffff", which sorts by time; "" where it is unknown. UTC where the SEG tells
            its time zone (and as OHIF and `write_seg` write it), else the clock of whoever wrote it.
        segments: in their order in the SEG.
    """

    series: str
    study: str
    image_series: str
    description: str
    created: str
    segments: tuple[Segment, ...]

    @property
    def by_model(self) -> bool:
        """Whether no person had a hand in any segment."""
        return bool(self.segments) and all(segment.algorithm == "AUTOMATIC" for segment in self.segments)


def read_header(dataset: Dataset) -> SegHeader:
    """Read what a SEG says of itself, from a file or from a DICOMweb server's metadata.

    Raises:
        FewshotError: It is no segmentation of one image series with 1 to 255 segments.
    """
    what = _name(dataset)
    modality = _text(dataset, "Modality")
    if modality not in ("SEG", ""):
        raise FewshotError(
            f"The series {_text(dataset, 'SeriesInstanceUID')} is {modality}, no segmentation."
        )
    referenced = {_text(item, "SeriesInstanceUID") for item in dataset.get("ReferencedSeriesSequence") or ()}
    referenced.discard("")
    if len(referenced) != 1:
        told = (
            f"names {len(referenced)} image series"
            if referenced
            else "does not say which image it belongs to"
        )
        raise FewshotError(f"{what} {told}; export it again as the segmentation of one image series.")
    segments = tuple(
        _segment(item, at) for at, item in enumerate(dataset.get("SegmentSequence") or (), start=1)
    )
    if not segments:
        raise FewshotError(f"{what} lists no segments; export it again.")
    if len(segments) > LARGEST:
        raise FewshotError(f"{what} has {len(segments)} segments; at most {LARGEST} are read, so split it.")
    number, times = Counter(segment.number for segment in segments).most_common(1)[0]
    if times > 1:
        raise FewshotError(f"{what} has {times} segments of the number {number}; export it again.")
    return SegHeader(
        series=_text(dataset, "SeriesInstanceUID"),
        study=_text(dataset, "StudyInstanceUID"),
        image_series=referenced.pop(),
        description=_text(dataset, "SeriesDescription"),
        created=_created(dataset),
        segments=segments,
    )


def read_seg(dataset: Dataset, volume: Volume, *, image_series: str | None = None) -> np.ndarray:
    """Bring the voxels of a SEG onto the grid of the image that it was drawn on.

    Args:
        dataset: The SEG with its pixels, BINARY or FRACTIONAL (half and more counts as inside).
        volume: The image, in any voxel order; its affine may be sheared.
        image_series: The image's SeriesInstanceUID, checked where it is given.

    Returns:
        uint16 [X, Y, Z]: i + 1 where segment i of the header's list lies, 0 elsewhere. A SEG may draw nothing.

    Raises:
        FewshotError: It belongs to another series, does not lie in the image, or cannot be read.
    """
    header = read_header(dataset)
    what = _name(dataset)
    if image_series not in (None, header.image_series):
        raise FewshotError(
            f"{what} belongs to the image series {header.image_series}, not to {image_series}; open that one."
        )
    numbers = [segment.number for segment in header.segments]
    frames = list(drawn_frames(dataset, what, numbers, volume))
    lps = LPS_TO_RAS @ volume.affine
    spans = spans_of(frames, lps)
    sizes = [
        sum(int(frame.mask.sum()) for frame in frames if frame.index == at) for at in range(len(numbers))
    ]
    labels = np.zeros(volume.shape, dtype=np.uint16)
    # the larger one first, so that the smaller one is painted over it
    for index in sorted(range(len(numbers)), key=lambda at: (-sizes[at], numbers[at])):
        mine = [(frame, span) for frame, span in zip(frames, spans, strict=True) if frame.index == index]
        painted = [paint(labels, index + 1, frame, span, lps) for frame, span in mine]
        lost = None in painted
        if mine and not any(painted):
            lost = sum(paint_nearest(labels, index + 1, frame, lps) for frame, _ in mine) == 0
        if lost:
            raise FewshotError(
                f"{what} lies outside the image {volume.name} with its segment "
                f"{header.segments[index].name!r}; draw that on the image again."
            )
    return labels


def _name(dataset: Dataset) -> str:
    description = _text(dataset, "SeriesDescription")
    named = f" {description!r}" if description else ""
    return f"The segmentation{named} (series {_text(dataset, 'SeriesInstanceUID') or 'without a UID'})"


def _text(dataset: Dataset, keyword: str) -> str:
    """A value as text without the blanks of any kind around it; "" where there is none."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).replace("\0", " ").strip()


def _segment(item: Dataset, position: int) -> Segment:
    number = int(item.get("SegmentNumber") or position)
    algorithm = _text(item, "SegmentAlgorithmType").upper()
    return Segment(
        number=number,
        name=_text(item, "SegmentLabel") or f"Segment {number}",
        algorithm=algorithm if algorithm in ALGORITHMS else "",
    )


def _created(dataset: Dataset) -> str:
    """The first complete time of those that a SEG tells, "" without one."""
    zone = re.fullmatch(r"([+-])(\d\d)(\d\d)", _text(dataset, "TimezoneOffsetFromUTC"))
    offset = timedelta(hours=int(zone[2]), minutes=int(zone[3])) if zone else timedelta()
    for kind in ("Content", "Series", "InstanceCreation"):
        day = _text(dataset, f"{kind}Date").replace(".", "")
        clock, _, fraction = _text(dataset, f"{kind}Time").replace(":", "").partition(".")
        try:
            time = datetime.strptime(f"{day}{clock:0<6}.{fraction[:6]:0<6}", "%Y%m%d%H%M%S.%f")
            time = time + offset if zone and zone[1] == "-" else time - offset
        except (ValueError, OverflowError):  # no date, or one that the time zone moves out of the calendar
            continue
        return time.strftime("%Y%m%d%H%M%S.%f").zfill(21)  # Linux writes the year 1 as "1"
    return ""
