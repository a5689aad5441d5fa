"""The headers of an image's DICOM files, as far as reports on it need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from fewshot.errors import FewshotError
from fewshot.volumes.dicom import NOT_IMAGES


def read_images(series: Path) -> list[Dataset]:
    """The headers of the one image series in a folder, without pixels.

    Raises:
        FewshotError: there is none, or there are several.
    """
    try:
        headers = [_header(path) for path in sorted(series.iterdir()) if path.is_file()]
    except OSError as error:
        raise FewshotError(f"{series} cannot be read ({error}); check the image's DICOM files.") from error
    images = [image for image in headers if image is not None]
    if not images:
        raise FewshotError(f"{series} holds no DICOM image; give the folder with the image's files.")
    if len({str(image.SeriesInstanceUID) for image in images}) > 1:
        raise FewshotError(f"{series} holds several image series; give a folder with one of them.")
    return images


def _header(path: Path) -> Dataset | None:
    """The header of an image, None for other files."""
    try:
        image = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    return image if "Rows" in image and image.get("Modality") not in NOT_IMAGES else None


def in_space(images: Sequence[Dataset]) -> bool:
    """Whether all images of a series say where they lie; an enhanced one does so frame by frame."""
    if all(image.get("ImagePositionPatient") and image.get("ImageOrientationPatient") for image in images):
        return True
    groups = (images[0].get(f"{kind}FunctionalGroupsSequence") or () for kind in ("Shared", "PerFrame"))
    enhanced = any("PlanePositionSequence" in group for sequence in groups for group in sequence[:1])
    return enhanced and len(images) == 1


class Planes:
    """Where the images of a series lie.

    Args:
        images: each with its own place and direction, or one alone.
    """

    def __init__(self, images: Sequence[Dataset]) -> None:
        self._images = images
        if len(images) > 1:
            axes = np.array([image.ImageOrientationPatient for image in images], np.float64).reshape(-1, 2, 3)
            self._normals = np.cross(axes[:, 0], axes[:, 1])
            self._origins = np.array([image.ImagePositionPatient for image in images], np.float64)

    def nearest(self, lps: np.ndarray) -> Dataset:
        """The image whose plane is nearest to a point (LPS mm ``[3]``)."""
        if len(self._images) == 1:
            return self._images[0]
        return self._images[int(np.abs(((lps - self._origins) * self._normals).sum(1)).argmin())]
