"""DICOM structured reports (SR) -> landmarks: the points of measurement groups, ours and those of other programs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from pydicom import Dataset

from fewshot.errors import FewshotError
from fewshot.landmarks.template import Point
from fewshot.volumes import read_volume
from lib.pacs.sr_images import read_images

GROUP, TRACKING, FINDING = ("125007", "DCM"), ("112039", "DCM"), ("121071", "DCM")
SITES = (("363698007", "SCT"), ("G-C0E3", "SRT"))
"""Finding Site, now and as it was coded before 2017."""
TOOL = re.compile(r"[Cc]ornerstone\w*@[^:]*:")
"""OHIF tells its tool in the place of a name."""


def read_sr(dataset: Dataset, series: Path | None = None) -> dict[str, Point]:
    """The landmarks that a report tells a place of.

    They are the points (SCOORD3D or SCOORD of type POINT) of its measurement groups (TID 1410, 1411, 1501); other
    regions are passed over. A landmark is named by its tracking identifier, or by its finding where OHIF wrote it,
    and several points of one name are one landmark in their middle.

    Args:
        dataset: the report.
        series: folder with the DICOM files of the image that it belongs to; only points in pixels need it, and
            others are checked to lie in the image's frame of reference where it is given.

    Returns:
        Landmark name -> RAS+ mm; empty if there is none.

    Raises:
        FewshotError: It is no report, belongs to another image, or is damaged.
    """
    what = f"The report (series {dataset.get('SeriesInstanceUID') or 'without a UID'})"
    if dataset.get("Modality") != "SR":
        raise FewshotError(
            f"The series {dataset.get('SeriesInstanceUID')} is {dataset.get('Modality')}, no report."
        )
    images = read_images(series) if series else []
    points: dict[str, list[Point]] = defaultdict(list)
    try:
        for group in _items(dataset):
            if _concept(group) != GROUP:
                continue
            for item in _items(group):
                if item.get("GraphicType") == "POINT":
                    name = _name(group)
                    points[name].append(_point(item, series, images, f"{what} with its landmark {name!r}"))
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise FewshotError(
            f"{what} is damaged ({type(error).__name__}: {error}); export it again."
        ) from error
    return {name: _middle(of_name) for name, of_name in points.items()}


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items below one, in their order."""
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from _items(item)


def _concept(item: Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence") or ()
    return (
        (str(names[0].get("CodeValue")), str(names[0].get("CodingSchemeDesignator"))) if names else ("", "")
    )


def _name(group: Dataset) -> str:
    """What a measurement group is about.

    Raises:
        ValueError: It does not say.
    """
    told: dict[tuple[str, str], str] = {}
    for item in group.get("ContentSequence") or ():
        coded = item.get("ConceptCodeSequence") or ()
        text = coded[0].get("CodeMeaning") if coded else item.get("TextValue")
        if text and str(text).strip():
            told.setdefault(_concept(item), str(text).strip())
    tracking = told.get(TRACKING, "")
    for name in ("" if TOOL.match(tracking) else tracking, *(told.get(key) for key in (FINDING, *SITES))):
        if name:
            return name
    raise ValueError("a measurement group has no name")


def _point(item: Dataset, series: Path | None, images: Sequence[Dataset], what: str) -> Point:
    values = np.array(item.GraphicData, np.float64)
    if item.ValueType == "SCOORD3D":
        frame = item.get("ReferencedFrameOfReferenceUID")
        if images and frame != images[0].get("FrameOfReferenceUID"):
            raise FewshotError(f"{what} belongs to another frame of reference than the image in {series}.")
        x, y, z = values.tolist()
        return -x, -y, z
    if series is None:
        raise FewshotError(f"{what} counts pixels of an image; give the folder with the image's DICOM files.")
    uids = {
        image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for image in _items(item)
        if image.get("ValueType") == "IMAGE"
    }
    marked = [image for image in images if image.SOPInstanceUID in uids]
    if not marked:
        raise FewshotError(f"{what} is marked on an image that is not in {series}; give the series of that.")
    return _in_image(marked[0], values - 0.5, series, single=len(images) == 1, what=what)


def _in_image(image: Dataset, pixel: np.ndarray, series: Path, *, single: bool, what: str) -> Point:
    """A place in an image; the centre of its first pixel is (0, 0)."""
    if int(image.get("NumberOfFrames") or 1) > 1:
        raise FewshotError(f"{what} counts pixels of an image with several frames, which is not supported.")
    column, row = pixel.tolist()
    if single:
        x, y, z = apply_affine(read_volume(series).affine, (column, row, 0)).tolist()
        return x, y, z
    across, down = np.array(image.ImageOrientationPatient, np.float64).reshape(2, 3)
    height, width = (float(value) for value in image.PixelSpacing)
    position = np.array(image.ImagePositionPatient, np.float64)
    x, y, z = (position + column * width * across + row * height * down).tolist()
    return -x, -y, z


def _middle(points: Sequence[Point]) -> Point:
    x, y, z = np.mean(points, axis=0).tolist()
    return x, y, z
